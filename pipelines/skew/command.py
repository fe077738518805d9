"""The `recsys skew` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.options import ConfigOption, SetOption, WorkspaceOption, open_run, same_run
from pipelines.terminal import JsonOption, console, print_json, say_next

if TYPE_CHECKING:  # importing it takes seconds, which `recsys --help` need not spend
    from pipelines.skew.difference import Difference
    from pipelines.skew.measure import Skew

FILE = "skew.json"


def skew(
    live: Annotated[Path, typer.Option("--live", help="folder of the server")], config: ConfigOption = "demo",
    root: WorkspaceOption = None, set_: SetOption = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="that answered", show_default="the run's, and the server's")
    ] = None,
    scores: Annotated[float, typer.Option("--scores", help="share of probabilities that may differ", min=0, max=1)] = 0.0,
    histories: Annotated[float, typer.Option("--histories", help="share of requests whose history may", min=0, max=1)] = 0.01,
    features: Annotated[
        float, typer.Option("--features", help="share of the values of a user's feature that may", min=0, max=1)
    ] = 0.01,
    stale_features: Annotated[
        float, typer.Option("--stale-features", help="the same of features that are as of the bundle", min=0, max=1)
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Compare what a server's models read and said with what the log gives offline. Exit code 1 above a limit.

    The run's dataset must be made of a log that has what was posted to the server: prepare it again first.

    Example: recsys skew --config demo --live live --histories 0.02
    """
    from pipelines.skew.measure import Limits, measure, write
    from pipelines.workspace import open_dataset

    settings, workspace = open_run(config, set_, root)
    data = open_dataset(workspace, settings)
    folders = [bundle] if bundle else [workspace.bundle, *sorted(path for path in (live / "models").glob("*") if path.is_dir())]
    found = measure(data, live, folders, Limits(scores, histories, features, stale_features))
    write(found, workspace.root / FILE)
    if as_json:
        print_json(found.document())
    show_skew(console, found)
    console.print(f"[bold]skew[/] in {workspace.root / FILE}")
    say_next(f"recsys prepare {same_run(config, root, set_)}", f"recsys export {same_run(config, root, set_)}")
    if found.failures:
        raise typer.Exit(1)


def show_skew(console: Console, skew: "Skew") -> None:
    """A line of counts, a table, and a sentence for every limit that is exceeded."""
    console.print(
        f"{skew.requests:,} logged requests; {skew.other_versions:,} of bundles that are not here; {skew.not_in_log:,} that "
        f"the log cannot tell (after its end, of nobody, or forgotten); {skew.histories.requests:,} compared",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table()
    for column in ("what", "compared", "differ", "largest", "mean"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for task, each in skew.scores.items():
        table.add_row(f"probability of {escape(task)}", *_cells(each))
    for name, compared in (("history", skew.histories), ("behaviours", skew.behaviours)):
        if compared.requests:
            table.add_row(name, f"{compared.requests:,}", f"{compared.share:.2%}", "", "")
    for name, each in skew.features.items():
        what = f"feature {name}" + ("" if name in skew.by_user else " (as of the bundle)")
        table.add_row(escape(what), *_cells(each))
    console.print(table)
    if not skew.histories.requests:
        console.print(
            "[bold]no request was compared with the log[/]: it has to reach beyond the requests, and have what was posted"
        )
    for sentence in skew.failures:
        console.print(f"[bold red]{escape(sentence)}[/]", highlight=False, soft_wrap=True)


def _cells(found: "Difference") -> tuple[str, str, str, str]:
    return f"{found.count:,}", f"{found.share:.2%}", f"{found.largest:.2g}", f"{found.mean:.2g}"
