"""`recsys simulate --loop N`: days in which the endpoint serves the simulated users and learns from what they do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from pipelines.loop.plan import LoopConfig, policies, sentence, world_of
from pipelines.loop.play import play
from pipelines.loop.report import result, rows, write
from pipelines.workspace import config_path
from recsys.config import load
from recsys.errors import InputError


def run_loop(
    config: str, folder: Path, loop: LoopConfig, *, overrides: Sequence[str] = (), vary: Sequence[str] = (),
    console: Console | None = None, **world: Any,
) -> dict[str, Any]:  # fmt: skip
    """Play the base config and every variant of it in one world; `world` are fields of Simulation. Raises InputError.

    A loop that was killed goes on where it was, and one that is done is only reported again.
    """
    path = config_path(config)
    spec = world_of(loop, **world)
    chosen = policies(loop, vary, lambda *more: load(path, *overrides, *more))
    played = {each.name: (each, play(each, spec, folder / each.name, console=console), folder / each.name) for each in chosen}
    found = result(spec, played)
    found["files"] = [str(each) for each in write(found, folder)]
    return found


def simulate_loop(
    config: str, folder: Path | None, days: int, *, warm_up: int, overrides: Sequence[str], vary: Sequence[str],
    console: Console | None, **world: Any,
) -> dict[str, Any]:  # fmt: skip
    """What the command does: play, write and show."""
    try:
        loop = LoopConfig(days=days, warm_up=warm_up)
    except ValidationError as error:
        raise InputError(f"--loop {days} --days {warm_up}: {sentence(error)}") from error
    folder = folder or Path("runs") / load(config_path(config), *overrides).name / "loop"
    found = run_loop(config, folder, loop, overrides=overrides, vary=vary, console=console, **world)
    if console is not None:
        show(console, found)
    return found


def show(console: Console, found: dict[str, Any]) -> None:
    columns, cells = rows(found)
    table = Table(title=f"{len(found['days'])} days, means")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in cells:
        table.add_row(*row)
    console.print(table)
    console.print(f"by day: {', '.join(found['files'])}", highlight=False, soft_wrap=True)
