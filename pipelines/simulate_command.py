"""`recsys simulate`: a log with known truth, and days that are served and learned from."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from pipelines.options import SetOption
from pipelines.terminal import JsonOption, console, print_json, say_next
from recsys.artefact import read_manifest
from recsys.errors import InputError


def simulate(
    out: Annotated[Path, typer.Option("--out", help="folder to write")] = Path("runs/demo/raw"),
    users: int = 2000, items: int = 1000, events: int = 200_000, days: int = 30, seed: int = 1,
    drift: Annotated[float, typer.Option(help="how much of a taste is new each day, 0 to 1")] = 0.03,
    trend: Annotated[float, typer.Option(help="how much fashion adds to and takes from a click's logit; 0: no fashion")] = 0.0,
    trend_drift: Annotated[float, typer.Option("--trend-drift", help="how much of the fashion is new each day, 0 to 1")] = 0.1,
    loop: Annotated[
        int, typer.Option("--loop", min=0, help="days that follow the log, served by an endpoint that learns every day")
    ] = 0,
    config: Annotated[str, typer.Option("--config", "-c", help="of the loop: a shipped config, or a YAML file")] = "demo",
    root: Annotated[
        Path | None, typer.Option("--workspace", help="of the loop: its folder", show_default="runs/NAME/loop")
    ] = None,
    set_: SetOption = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", help="of the loop: another policy, 'NAME: {section.key: value, loop.key: value}'; repeatable"),
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Write a simulated log with known truth: impressions, clicks, long views, likes and purchases.

    With --loop N, also play N days on: a server answers the simulated users, what they do becomes the day's log, the daily run
    learns from it, and the truth says what that was worth.

    Examples: recsys simulate --events 1000000 --users 20000 --out runs/big/raw

    recsys simulate --loop 7 --drift 0.1 --vary 'frozen: {loop.train_every: 0}'
    """
    if loop:
        from pipelines.loop.command import simulate_loop

        found = simulate_loop(
            config, root, loop, overrides=set_ or [], vary=vary or [], console=None if as_json else console,
            users=users, items=items, events=events, warm_up=days, seed=seed, drift=drift, trend=trend, trend_drift=trend_drift,
        )  # fmt: skip
        if as_json:
            print_json(found)
        return
    from rich.progress import Progress

    from recsys.simulate import Simulation, simulate

    try:
        spec = Simulation(
            users=users, items=items, events=events, days=days, seed=seed, drift=drift, trend=trend, trend_drift=trend_drift
        )
    except ValidationError as error:
        raise InputError(_pydantic_sentence(error)) from error
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("simulating", total=spec.events)
        simulate(spec, out, progress=lambda done, total: bar.update(task, completed=done, total=total))
    rows = read_manifest(out, "raw")["rows"]
    console.print(f"[bold]{rows['events']:,}[/] impressions of {rows['users']:,} users and {rows['items']:,} items in {out}")
    say_next(f"recsys prepare --config demo --data {out}")


def _pydantic_sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place + ' = ' + repr(first['input']) + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
