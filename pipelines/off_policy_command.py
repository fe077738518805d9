"""The `recsys off-policy` command."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.options import ConfigOption, SetOption, StoreOption, WorkspaceOption, open_run, same_run
from pipelines.terminal import JsonOption, console, print_json, say_next


def off_policy(
    config: ConfigOption = "demo", root: WorkspaceOption = None, set_: SetOption = None,
    part: Annotated[str, typer.Option("--part", help="whose scores are the policy")] = "retriever",
    task: Annotated[str | None, typer.Option("--task", help="whose label is the reward", show_default="the first")] = None,
    temperature: Annotated[
        list[float] | None, typer.Option("--temperature", help="what scores are divided by; repeatable", show_default="1")
    ] = None,
    store: StoreOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Estimate what a trained model would earn if it chose what is shown, from the log's own propensities.

    Items are drawn by the softmax of the model's scores over a temperature, each place of a page by itself.

    Example: recsys off-policy --config demo --task click --temperature 1 --temperature 3
    """
    from pipelines.off_policy import FILE, flat_metrics, off_policy_run
    from pipelines.workspace import open_dataset
    from recsys import track

    settings, workspace = open_run(config, set_, root)
    data = open_dataset(workspace, settings)
    result = off_policy_run(settings, data, workspace, part=part, task=task, temperatures=temperature or [1.0])
    if workspace.run_id is not None:
        with track.resume_run(workspace.run_id, uri=store) as run:
            run.metrics(flat_metrics(result))
            run.artefact(workspace.root / FILE, "metrics")
    if as_json:
        print_json(result)
    show_off_policy(console, result)
    console.print(f"[bold]off-policy values[/] in {workspace.root / FILE}")
    say_next(f"recsys evaluate {same_run(config, root, set_)}")


def show_off_policy(console: Console, result: dict[str, Any]) -> None:
    """A table for each temperature; what cannot be estimated is said above it, and its numbers are dimmed."""
    logging = result["logging"]
    console.print(
        f"the log's own policy: {result['task']} {logging['value']:.4f} ({logging['low']:.4f} to {logging['high']:.4f}) of "
        f"{result['rows']:,} rows, {result['users']:,} users, test split",
        highlight=False,
    )
    for temperature, found in result["policies"].items():
        known, style = found["support"], "" if found["support"]["estimable"] else "dim"
        title = (
            f"{result['part']}, temperature {temperature}: effective rows {known['ess']:,.0f}, largest weight "
            f"{known['max_weight']:,.1f}, mean weight {known['mean_weight']:.3f}"
        )
        for problem in known["problems"]:
            console.print(f"[bold yellow]temperature {temperature}:[/] {escape(problem)}", highlight=False, soft_wrap=True)
        table = Table(title=title, title_justify="left", row_styles=[style])
        for column in ("estimator", "value, 95 % interval", "above the log, 95 % interval"):
            table.add_column(column, justify="left" if column == "estimator" else "right")
        for name, each in found["estimates"].items():
            gain = each["gain"]
            table.add_row(
                name + (" (biased)" if each["bias"] else ""),
                f"{each['value']:.4f} ({each['low']:.4f} to {each['high']:.4f})",
                f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})",
            )
        console.print(table)
