"""The `recsys` command. Every command reads artefacts, calls one stage, and says where its output lies and what to run next."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

from pipelines.ablation.command import ablate
from pipelines.comparison.command import compare
from pipelines.daily.command import daily
from pipelines.data_commands import data_app
from pipelines.depth.command import depth
from pipelines.forget.command import forget
from pipelines.full_disk import is_full_disk
from pipelines.ids_command import ids
from pipelines.keys_command import keys_app
from pipelines.monitor.command import status
from pipelines.off_policy_command import off_policy
from pipelines.options import ConfigOption, SetOption, StoreOption, WorkspaceOption, given, open_run, same_run
from pipelines.promotion.command import promote
from pipelines.promotion.rollback_command import rollback
from pipelines.recommend_command import recommend
from pipelines.reproduction.command import reproduce
from pipelines.schedule.command import schedule
from pipelines.serve_command import serve
from pipelines.show import show_metrics
from pipelines.show_data import show_prepared
from pipelines.simulate_command import simulate
from pipelines.skew.command import skew
from pipelines.sweeping.command import sweep
from pipelines.sync_command import sync
from pipelines.terminal import JsonOption, console, print_json, say_next
from pipelines.workspace import Workspace
from recsys.errors import InputError

ORDER = (
    "demo", "simulate", "prepare", "data", "ids", "train", "evaluate", "export", "depth", "promote", "rollback", "serve",
    "daily", "schedule", "status", "forget", "keys", "recommend", "skew", "compare", "sweep", "ablate", "off-policy",
    "reproduce", "sync", "doctor",
)  # fmt: skip


class InOrder(TyperGroup):
    """Commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=InOrder, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
    help="From raw logs to a live recommender: simulate or prepare, train, evaluate, export, promote, serve.\n\n"
    "New here? [bold]recsys demo[/] runs all of it on a simulated log.",
)  # fmt: skip
app.add_typer(data_app, name="data")
app.add_typer(keys_app, name="keys")
app.command()(simulate)
app.command()(ids)
app.command("off-policy")(off_policy)
app.command()(depth)
app.command()(promote)
app.command()(rollback)
app.command()(serve)
app.command()(daily)
app.command()(schedule)
app.command()(status)
app.command()(recommend)
app.command()(compare)
app.command()(sweep)
app.command()(ablate)
app.command()(reproduce)
app.command()(sync)
app.command()(skew)
app.command()(forget)
INTERRUPTED = 130  # what typer turns Ctrl-C into

DataOption = Annotated[Path | None, typer.Option("--data", help="folder of the raw logs")]


@app.command()
def prepare(
    config: ConfigOption = "demo", data: DataOption = None, root: WorkspaceOption = None, set_: SetOption = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="where the work runs: processes, or ray", show_default="this process")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="parts of the work at a time", show_default="by the cores")] = None,
    address: Annotated[str | None, typer.Option(help="of a running Ray cluster", show_default="a local one is started")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="build from scratch even where new files could be appended")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Turn raw logs into a dataset: timelines, examples, id maps, splits; bad rows go to quarantine with the reason.

    Run again after new files arrived, it appends them where data.events.arrives lets it, and else builds from scratch.

    Example: recsys prepare --config ml-1m --data path/to/ml-1m --engine processes --workers 4
    """
    from pipelines import data_report, stages
    from recsys.data.engines import engine as make_engine

    chosen = make_engine(**given(kind=engine, workers=workers, address=address))
    settings, workspace = open_run(config, set_, root)
    prepared = stages.prepare(
        settings, data or workspace.raw, workspace, engine=chosen, anew=anew, console=None if as_json else console
    )
    if as_json:
        print_json(prepared.to_json(workspace))
    show_prepared(console, workspace.dataset, prepared)
    say_next(f"recsys train {same_run(config, root, set_)}", f"open {workspace.data_report / data_report.PAGE_FILE}")


@app.command()
def train(
    config: ConfigOption = "demo", root: WorkspaceOption = None, set_: SetOption = None,
    only: Annotated[str | None, typer.Option("--only", help="just this part: retriever, generator, policy or ranker")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="workspace of an earlier run of this config to begin from; new ids get new rows"),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="write a trace of some steps, for chrome://tracing")] = False,
    store: StoreOption = None,
) -> None:  # fmt: skip
    """Train the retriever, where the config has them a generator and a policy, and, where the log has tasks, the ranker.

    A killed run goes on where it stopped.

    Example: recsys train --config ml-1m --set retriever.fit.epochs=10

    Many processes: torchrun --nproc-per-node 2 -m pipelines.cli train --config ml-1m
    """
    from pipelines import stages

    if only not in (None, "retriever", "generator", "policy", "ranker"):
        raise InputError(f"--only {only!r} is unknown: choose retriever, generator, policy or ranker")
    settings, workspace = open_run(config, set_, root)
    first = stages.is_first_process()
    manifests = stages.train(
        settings, workspace, only=only, console=console if first else None, uri=store, profile=profile,
        start=None if start is None else Workspace(start),
    )  # fmt: skip
    if first:
        for part, manifest in manifests.items():
            best = "is not known," if manifest["best"] is None else f"{manifest['best']:.4f}"
            console.print(
                f"[bold]{part}[/] in {workspace.checkpoint(part)}: {manifest['main_metric']} {best} after "
                f"{manifest['epochs']} epochs, {manifest['seconds']:.0f} s"
            )
            if "guard" in manifest:
                console.print(f"  kept: the [bold]{manifest['guard']['kept']}[/], {manifest['guard']['why']}", highlight=False)
            shares = ", ".join(f"{name} {share:.0%}" for name, share in manifest["time_share"].items())
            console.print(f"  time: {shares}; peak memory {manifest['peak_memory_gib']:.2f} GiB", highlight=False)
            if profile:
                console.print(f"  trace in {workspace.trace(part)}: open it in chrome://tracing or https://ui.perfetto.dev")
        say_next(f"recsys evaluate {same_run(config, root, set_)}")


@app.command()
def evaluate(
    config: ConfigOption = "demo",
    root: WorkspaceOption = None,
    set_: SetOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the trained models on the test split, beside popularity, item-KNN and transition counts.

    Example: recsys evaluate --config ml-1m --json
    """
    from pipelines import stages

    settings, workspace = open_run(config, set_, root)
    result = stages.evaluate(settings, workspace, uri=store)
    if as_json:
        print_json(result)
    show_metrics(console, workspace.metrics, result)
    say_next(f"recsys export {same_run(config, root, set_)}")


@app.command()
def export(
    config: ConfigOption = "demo",
    root: WorkspaceOption = None,
    set_: SetOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the ONNX bundle after proving that ONNX and torch agree, and register it as the model's candidate.

    Example: recsys export --config ml-1m
    """
    from pipelines import stages

    settings, workspace = open_run(config, set_, root)
    manifest = stages.export(settings, workspace, uri=store)
    if as_json:
        print_json(
            {"bundle": str(workspace.bundle), **{k: manifest.get(k) for k in ("fingerprint", "version", "parity_max_error")}}
        )
    errors = ", ".join(f"{part} {error:.1e}" for part, error in manifest["parity_max_error"].items())
    console.print(f"[bold]bundle[/] in {workspace.bundle}, largest difference of torch and ONNX: {errors}")
    say_next(f"recsys promote --config {config}", f"recsys serve {same_run(config, root)}")


@app.command()
def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check versions, ONNX Runtime, the MLflow store, disk and memory, and say the mend for each failure."""
    from pipelines.doctor import checks, healthy, render, to_json

    found = checks(store)
    if as_json:
        print_json(to_json(found))
    console.print(render(found))
    if not healthy(found):
        raise typer.Exit(1)


@app.command()
def demo(
    data: DataOption = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="default: the shipped config that fits --data")] = None,
    set_: SetOption = None, store: StoreOption = None,
) -> None:  # fmt: skip
    """Run everything, from raw logs to recommendations of the live endpoint; without --data on a simulated log.

    Example: recsys demo --data path/to/ml-1m
    """
    from pipelines.demo import demo

    demo(console, data=data, config=config, overrides=set_ or [], uri=store)


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run a command; the user's mistakes end with one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except InputError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            console.print("stopped: artefacts are as they were, and training goes on from its last checkpoint")
        raise
    except Exception as error:
        if not is_full_disk(error):
            raise
        reason = str(error).partition("\n")[0]
        console.print(f"[bold red]error:[/] {escape(reason)}: make room, and run it again", highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
