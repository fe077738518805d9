"""The `recsys data` commands: look at datasets that `recsys prepare` made."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipelines.terminal import JsonOption, console, print_json, say_next
from recsys.errors import InputError

data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="Look at datasets: what differs between two, their quality, and leaks.\n\n"
    "Example: recsys data report runs/demo/dataset",
)  # fmt: skip
DatasetArgument = Annotated[Path, typer.Argument(metavar="DATASET", help="folder of a dataset, such as runs/demo/dataset")]


@data_app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="folder of a dataset")],
    after: Annotated[Path, typer.Argument(metavar="B", help="folder of the dataset to compare with it")],
    as_json: JsonOption = False,
) -> None:
    """Explain what differs from dataset A to dataset B: config, files, code, ids, events, labels, splits.

    Example: recsys data diff runs/monday/dataset runs/tuesday/dataset
    """
    from recsys.data.diff import diff, explain

    found = diff(before, after)
    if as_json:
        print_json(found)
    else:
        typer.echo(explain(found))


@data_app.command()
def report(
    dataset: DatasetArgument,
    html: Annotated[Path | None, typer.Option("--html", help="write the report as one HTML page to this file")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a dataset's quality: rows left out, events per user and item, splits, labels, features, leaks.

    Example: recsys data report runs/demo/dataset --html report.html
    """
    from pipelines.data_report import describe, page
    from pipelines.show_data import show_quality

    found = describe(dataset)
    if html is not None:
        try:
            html.write_text(page(found))
        except OSError as error:
            raise InputError(
                f"--html {html} cannot be written ({error.strerror}): name a file in a folder that exists"
            ) from error
    if as_json:
        print_json(found)
    show_quality(console, found, dataset)
    say_next(f"open {html}" if html else f"recsys data report {dataset} --html report.html")


@data_app.command()
def leaks(dataset: DatasetArgument, as_json: JsonOption = False) -> None:
    """Name held-out pairs that training shows, and training events from after the first held-out moment.

    Example: recsys data leaks runs/demo/dataset
    """
    from recsys.data.leaks import leaks, sentences

    found = leaks(dataset)
    said = sentences(found)
    if as_json:
        print_json({**found, "sentences": said})
    for sentence in said:
        console.print(f"[yellow]leak[/] {escape(sentence)}", highlight=False)
    if not said:
        console.print(f"[green]no leaks[/] found in {escape(str(dataset))}", highlight=False)
