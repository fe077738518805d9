"""`recsys sweep`: a search for better settings."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipelines.options import ConfigOption, SetOption, StoreOption, WorkspaceOption, open_run, same_run
from pipelines.terminal import JsonOption, console, print_json, say_next
from pipelines.workspace import config_path


def sweep(
    config: ConfigOption = "demo", root: WorkspaceOption = None, set_: SetOption = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search", help="YAML, 'section.key: [1, 2, 4]' or 'section.key: {low: 1e-4, high: 1e-2, log: true}'; repeatable"
        ),
    ] = None,
    space: Annotated[Path | None, typer.Option("--space", help="YAML file of such keys, instead of or beside --search")] = None,
    trials: Annotated[int, typer.Option("--trials", help="how many in all, those of an earlier call included")] = 20,
    stage: Annotated[
        str | None,
        typer.Option("--stage", help="retriever, generator, policy or ranker", show_default="the one that the keys are of"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="trials at a time, each in a process of its own")] = 1,
    seeds: Annotated[int, typer.Option("--seeds", help="further seeds with which the best settings are trained again")] = 0,
    prune: Annotated[
        str, typer.Option("--prune", help="which trials are given up early: median, hyperband, or none")
    ] = "median",
    keep: Annotated[int, typer.Option("--keep", help="of how many of the best trials the models are kept")] = 1,
    name: Annotated[str | None, typer.Option("--name", help="of the sweep", show_default="the stage")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="forget the trials of an earlier sweep of this name")] = False,
    store: StoreOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Search for settings with a better validation metric; the best one is judged on the test split in the end.

    Started again it goes on: what is tried is not tried again.

    Example: recsys sweep --config ml-1m --search 'retriever.fit.learning_rate: {low: 1e-4, high: 1e-2, log: true}' --trials 20
    """
    from pipelines.sweeping.plan import Plan
    from pipelines.sweeping.report import BEST_FILE, PLOT_FILE, RESULT_FILE, sentences, table
    from pipelines.sweeping.space import read_space
    from pipelines.sweeping.sweep import sweep
    from recsys.config import load

    settings, workspace = open_run(config, set_, root)
    overrides, path = list(set_ or []), config_path(config)
    chosen = read_space(search or [], space, settings, lambda *more: load(path, *overrides, *more), stage)
    plan = Plan(
        name or chosen.stage, chosen, path, overrides, trials, workers=workers, seeds=seeds, pruning=prune, keep=keep, anew=anew
    )
    console.print(
        f"{plan.name}: searching {escape(', '.join(chosen.entries))} of the {chosen.stage}", highlight=False, soft_wrap=True
    )
    found, folder = sweep(settings, workspace, plan, console=console, uri=store)
    if as_json:
        print_json(found)
    console.print(table(found))
    for line in sentences(found):
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"[bold]sweep[/] in {folder}: {RESULT_FILE}, {BEST_FILE}, {PLOT_FILE}", highlight=False, soft_wrap=True)
    say_next(f"recsys train {same_run(config, root, [*overrides, *found['best']['set']])}")
