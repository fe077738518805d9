"""`recsys ablate`: a base and its variants, trained with the same data and seeds."""

from typing import Annotated

import typer
from rich.markup import escape

from pipelines.options import ConfigOption, SetOption, StoreOption, WorkspaceOption, open_run
from pipelines.terminal import JsonOption, console, print_json, say_next
from pipelines.workspace import config_path


def ablate(
    config: ConfigOption = "demo", root: WorkspaceOption = None, set_: SetOption = None,
    over: Annotated[
        str | None, typer.Option("--over", help="a key that takes one of several kinds, as denoise, loss or retriever.encoder")
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", help="YAML, 'NAME: {retriever.denoise: {kind: truncated}}'; one or several keys; repeatable"),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            "--stage", help="retriever, generator, policy or ranker", show_default="where the key is; retriever before others"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="how many, from the config's own on")] = 3,
    store: StoreOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Train a base and its variants with the same data and seeds, and say which differences are shown, where, and at what cost.

    Started again it goes on: what is trained is not trained again.

    Example: recsys ablate --config ml-1m --over denoise --seeds 3
    """
    from pipelines.ablation.ablate import ablate
    from pipelines.ablation.table import render
    from pipelines.ablation.variants import plan
    from recsys.config import load

    settings, workspace = open_run(config, set_, root)
    chosen = plan(settings, over, variant or [], lambda *more: load(config_path(config), *(set_ or []), *more), stage)
    names = ", ".join(chosen.variants)
    console.print(f"{chosen.title}: training the {chosen.stage} of {escape(names)}", highlight=False, soft_wrap=True)
    found, folder = ablate(settings, workspace, chosen, seeds=seeds, console=console, uri=store)
    if as_json:
        print_json(found)
    console.print(render(found))
    console.print(f"[bold]ablation[/] in {folder}: ablation.md, ablation.json, ablation.png")
    say_next("recsys compare --experiment recsys-ablation --metric 'test/*'")
