"""`recsys daily`: one day from its raw partition to the live champion."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipelines.options import ConfigOption, SetOption, StoreOption, WorkspaceOption
from pipelines.terminal import JsonOption, console, print_json, say_next


def daily(
    config: ConfigOption = "demo",
    data: Annotated[Path | None, typer.Option("--data", help="folder of the raw logs, a partition a day")] = None,
    root: WorkspaceOption = None, set_: SetOption = None,
    day: Annotated[
        datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="which one", show_default="the newest of the log")
    ] = None,
    step: Annotated[str | None, typer.Option("--step", help="this step alone; the ones before it must be done")] = None,
    full: Annotated[bool, typer.Option("--full", help="train from scratch")] = False,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="wait until this endpoint serves the new champion")] = None,
    store: StoreOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Check, prepare, train, evaluate, export, promote and report one day; what is done already is not done again.

    Exit code 75 where another run holds the workspace, 2 where the day's data or a step stops it. A candidate that the gates
    refuse is no failure.

    Example: recsys daily --config demo --data runs/demo/raw --workspace runs/daily --day 2026-01-20
    """
    from pipelines.daily.lock import BUSY, BusyError
    from pipelines.daily.run import run_day
    from pipelines.options import open_run

    settings, workspace = open_run(config, set_, root)
    try:
        state = run_day(
            settings, data or workspace.raw, workspace.root, None if day is None else day.date(), step=step, full=full,
            endpoint=endpoint, uri=store, console=None if as_json else console,
        )  # fmt: skip
    except BusyError as error:
        console.print(f"[bold red]busy:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(BUSY) from None
    if as_json:
        print_json(state.to_json())
    says = f"; {state.decision['says']}" if state.decision else ""
    console.print(f"[bold]{state.day}[/] {state.status}{escape(says)}", highlight=False, soft_wrap=True)
    say_next(f"recsys serve --model {settings.name} --alias champion")
