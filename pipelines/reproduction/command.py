"""`recsys reproduce`: a run again, from what it stored."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.options import StoreOption
from pipelines.terminal import JsonOption, console, print_json, say_next

if TYPE_CHECKING:
    from pipelines.reproduction.reproduce import Reproduction


def reproduce(
    run_id: Annotated[str, typer.Argument(help="id of an MLflow run that was trained and evaluated")],
    data: Annotated[Path | None, typer.Option("--data", help="folder of the raw logs", show_default="where they lay")] = None,
    root: Annotated[
        Path | None, typer.Option("--workspace", help="new folder to work in", show_default="runs/reproduce-RUN_ID")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="how far any metric may be from the stored one", show_default="by what is as it was"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="stop where commit, packages or machine differ")] = False,
    store: StoreOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Prepare, train and evaluate again as a run did, and check that the metrics agree; exit code 1 where one does not.

    Example: recsys reproduce 0f3c9a6e2b1d4c58a7e9f0d1c2b3a495 --data path/to/ml-1m
    """
    from pipelines.reproduction import reproduce as work

    found = work.reproduce(
        run_id, raw=data, root=root, tolerance=tolerance, strict=strict, console=None if as_json else console, uri=store
    )
    if as_json:
        print_json(found.to_json())
    show(console, found)
    say_next(f"recsys compare {found.run_id} {found.new_run_id}")
    if not found.agrees:
        raise typer.Exit(1)


def show(console: Console, found: "Reproduction") -> None:
    table = Table(title=f"Run {found.run_id}, reproduced in {found.workspace.root}", title_justify="left")
    for column in ("metric", "stored", "now", "difference", "agrees"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    words = {True: "yes", False: "[bold red]no[/]", None: "[dim]not judged[/]"}
    for line in found.lines:
        difference = f"{line.difference:+.2g}" if line.difference else "0"
        table.add_row(escape(line.metric), f"{line.stored:.4f}", f"{line.now:.4f}", difference, words[line.agrees])
    console.print(table)
    for metric, lacks in found.missing.items():
        other = "the reproduction" if lacks == "the run" else "the run"
        console.print(f"  {metric}: only {lacks} has it, {other} does not", highlight=False, soft_wrap=True)
    style = "green" if found.agrees else "red"
    console.print(
        f"[bold {style}]{'agrees' if found.agrees else 'does not agree'}:[/] {escape(found.sentence)}", soft_wrap=True
    )
    console.print(f"[bold]reproduction[/] {found.new_run_id} in {found.workspace.root}", highlight=False, soft_wrap=True)
