"""`recsys depth`: how many candidates are worth ranking."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from pipelines.options import ConfigOption, SetOption, WorkspaceOption, open_run, same_run
from pipelines.terminal import JsonOption, console, print_json, say_next
from pipelines.workspace import Workspace

RESULT_FILE, PLOT_FILE = "depth.json", "depth.png"


def depth(
    config: ConfigOption = "demo", root: WorkspaceOption = None, set_: SetOption = None,
    depths: Annotated[
        list[int] | None,
        typer.Option("--depth", help="candidates that go to the ranker; repeatable", show_default="1, 10, 20, 50, ... all"),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="length of the lists")] = 10,
    users: Annotated[
        int | None, typer.Option("--users", min=1, help="judge so many, drawn by the config's seed", show_default="all")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="whose events are the targets: valid or test")] = "test",
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Judge the exported bundle with more and more candidates ranked, and say which serving.ranked to set.

    Lists are made by the serving code and judged as `recsys evaluate` judges, before and after the rerankers of the config,
    which need no new export: try them with --set.

    Example: recsys depth --config ml-1m --set 'serving.rerank=[{kind: mmr, trade_off: 0.8}]'
    """
    from pipelines.depth.depth import depth_run
    from pipelines.depth.table import sentences, table
    from pipelines.workspace import open_dataset

    settings, workspace = open_run(config, set_, root)
    data = open_dataset(workspace, settings)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("ranking", total=None)
        found = depth_run(
            settings, data, workspace, depths=depths or (), k=k, users=users, split=split,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    write(found, workspace)
    if as_json:
        print_json(found)
    console.print(table(found))
    for line in sentences(found):
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"[bold]depth[/] in {workspace.root}: {RESULT_FILE}, {PLOT_FILE}", highlight=False, soft_wrap=True)
    say_next(f"recsys export {same_run(config, root, [*(set_ or []), 'serving.ranked=' + str(found['smallest'])])}")


def write(found: dict[str, Any], workspace: Workspace) -> None:
    """Both files whole, or as they were."""
    from pipelines.depth.plot import figure

    scratch = workspace.root / f".{RESULT_FILE}.tmp"
    scratch.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    scratch.rename(workspace.root / RESULT_FILE)
    picture = workspace.root / f".{PLOT_FILE}.tmp"
    figure(found).savefig(picture, format="png")
    picture.rename(workspace.root / PLOT_FILE)
