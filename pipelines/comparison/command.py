"""`recsys compare`: runs side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.options import StoreOption
from pipelines.terminal import JsonOption, console, print_json

if TYPE_CHECKING:
    from pipelines.comparison.comparison import Comparison

REPORTS = "-reports"  # what the experiment of the stored pages is called after


def compare(
    runs: Annotated[list[str] | None, typer.Argument(help="ids or names of runs", show_default="the newest")] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment")] = "recsys", store: StoreOption = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="show what matches, as in 'test/*'; repeatable")] = None,
    limit: Annotated[int, typer.Option(min=1, help="newest runs shown")] = 6,
    every: Annotated[bool, typer.Option("--all", help="show all runs of the experiment")] = False,
    against: Annotated[
        str | None, typer.Option("--against", help="run that the others are held against", show_default="the best")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="write a page with plots to this file")] = None,
    log: Annotated[bool, typer.Option("--log/--no-log", help="keep the page in MLflow, in EXPERIMENT-reports")] = True,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Put runs side by side: the best of each metric among runs of the same protocol and data, intervals, and which
    differences are more than chance.

    Example: recsys compare --metric 'test/NDCG*' --limit 3
    """
    from pipelines.comparison.runs import compare
    from pipelines.comparison.table import render

    found = compare(
        experiment, runs=runs or (), metrics=metric or (), limit=None if every else limit, against=against, uri=store
    )  # fmt: skip
    if as_json:
        print_json(found.to_json())
    console.print(render(found, console.width))
    if html is not None:
        from pipelines.comparison.page import write_page

        write_page(found, html, uri=store)
        console.print(f"[bold]page[/] in {html}", highlight=False)
        if log:
            console.print(f"kept in MLflow: {keep(found, html, store)}", highlight=False, soft_wrap=True)


def keep(found: "Comparison", page: Path, store: str | None) -> str:
    """Store the page as an artefact of a run of its own, beside the experiment and not in it; return where to look at it."""
    from recsys import track

    data = {group.data for group in found.groups}
    with track.start_run(
        found.experiment + REPORTS, "compare", data=data.pop() if len(data) == 1 else "several", uri=store,
        params={"runs": len(found.runs), "main_metric": found.main_metric},
        tags={"kind": "comparison", "experiment": found.experiment},
    ) as run:  # fmt: skip
        run.artefact(page, "compare")
        run.document(found.to_json(), "compare/comparison.json")
    return run.hint
