"""Does a day survive every fault at every step? `python -m benchmarks.faults`: the whole matrix, each cell a real fault.

{kill -9, full disk, no memory, lost network to MLflow, corrupted artefact, clock jump} x {every step of `recsys daily`}, and
artefacts of the day before and of the store that are corrupted, too. A cell begins from a copy of the world just before its
step, the fault strikes at a seeded moment of that step, and the day is run again to its end. Then it has to be as the
undisturbed one: every file of every artefact, what day.json says, champion and metrics in MLflow. Last, whole days of which
every step is struck. In those, and where a cell moves the champion, an endpoint that follows it is asked all the time: every
version that answers has to be one that passed the gates. Exit status 1 where anything of that fails. `--fault` and `--step`
choose cells.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.faults.clock import ClockJump
from benchmarks.faults.damage import Damaged
from benchmarks.faults.disk import FullDisk, NoLargeFiles, small_disk
from benchmarks.faults.fault import Fault, Kill
from benchmarks.faults.matrix import Bench, Cell, Unlike
from benchmarks.faults.memory import NoMemory
from benchmarks.faults.network import LostNetwork, Proxy
from benchmarks.faults.snapshots import Snapshots
from benchmarks.faults.warm import warm
from benchmarks.faults.world import THREADS, World
from benchmarks.measure import report
from benchmarks.mlflow_server import Server
from pipelines.daily.state import STEPS

DISK_BYTES = 200 << 20
SIZE = {"days": 4, "users": 120, "events": 6000}
HOUR_S, DAY_S = 3600, 86_400
JUMPS_S = (-3 * 365 * DAY_S, -HOUR_S, 40 * DAY_S, 3 * 365 * DAY_S)
MADE_BEFORE = {  # what a step reads of what the day has made so far
    "train": ("dataset",), "evaluate": ("dataset", "retriever", "ranker"), "export": ("retriever", "ranker"),
    "promote": ("bundle", "metrics"), "reload": ("bundle",), "report": ("metrics", "bundle"),
}  # fmt: skip
ELSEWHERE: tuple[tuple[str, str, Unlike], ...] = (  # what else a step reads; a dataset is made again, a model is not
    ("prepare", "../{before}/dataset", "same"), ("train", "../{before}/dataset", "same"),
    ("train", "../{before}/retriever", "from scratch"), ("train", "../{before}/ranker", "from scratch"),
    ("evaluate", "../{before}/retriever", "champion not judged"),
    ("promote", "../../../store/artifacts/*/artifacts/bundle-{bundle}", "same"),
)  # fmt: skip
OTHERS, ENDPOINT = "other artefact", "endpoint"
Make = Callable[[str], Fault]


def faults(home: Path, scratch: Path, proxy: Proxy | None, *, has_disk: bool) -> dict[str, Make]:
    """What makes a fault for a step, by name."""
    made: dict[str, Make] = {
        Kill.name: lambda _: Kill(),
        FullDisk.name: lambda _: FullDisk(home) if has_disk else NoLargeFiles(),
        NoMemory.name: lambda _: NoMemory(),
        Damaged.name: lambda step: Damaged(*MADE_BEFORE.get(step, ())),
        ClockJump.name: lambda _: ClockJump(scratch / "clock", JUMPS_S),
    }
    return made | ({LostNetwork.name: lambda _: LostNetwork(proxy)} if proxy is not None else {})


def cells(chosen: list[str], steps: list[str], seed: int) -> Iterator[Cell]:
    """The cells, one after the other; those of the lost network have a world of their own, whose store is a server."""
    with (
        tempfile.TemporaryDirectory(prefix="recsys-faults-") as name, small_disk(Path(name) / "disk", DISK_BYTES) as disk,
        warm(THREADS) as runs,
    ):  # fmt: skip
        scratch = Path(name)
        home = disk or scratch / "disk"
        local = [each for each in chosen if each != LostNetwork.name]
        if local:
            world = World(home, f"sqlite:///{home / 'store' / 'mlflow.db'}", warm=runs).make(**SIZE)
            bench = Bench(Snapshots(world, scratch / "kept"), world.days[-1]).prepare()
            make = faults(home, scratch, None, has_disk=disk is not None)
            yield from _local(bench, make, local, steps, seed)
        if LostNetwork.name in chosen:
            server = Server(scratch / "away" / "store")
            proxy = Proxy(server.port)
            try:
                world = World(scratch / "away", proxy.uri, warm=runs).make(**SIZE)
                bench = Bench(Snapshots(world, scratch / "kept-away"), world.days[-1], server).prepare()
                for step in steps:
                    yield bench.cell(LostNetwork(proxy), step, seed)
            finally:
                proxy.close()


def _local(bench: Bench, make: dict[str, Make], chosen: list[str], steps: list[str], seed: int) -> Iterator[Cell]:
    for name in chosen:
        if name in make:
            for step in steps:
                yield bench.cell(make[name](step), step, seed)
    if OTHERS in chosen:
        names = {"before": bench.prepare_from_scratch().world.days[-2], "bundle": bench.expected["alias/champion"]}
        for step, artefact, unlike in ELSEWHERE:
            if step in steps:
                yield bench.cell(Damaged(artefact.format(**names)), step, seed, unlike=unlike)
    if ENDPOINT in chosen:
        kinds = list(make)
        for turn in range(len(kinds)):
            yield bench.chain({step: make[kinds[(place + turn) % len(kinds)]](step) for place, step in enumerate(steps)}, seed)


def main(chosen: list[str], steps: list[str], seed: int, out: Path | None) -> None:
    began, found = time.perf_counter(), []
    for cell in cells(chosen, steps, seed):
        found.append(cell)
        _say(f"{time.perf_counter() - began:.0f} s: {cell.fault} at {cell.step}: {cell.hit} {cell.note}; {cell.verdict}")
        if not cell.is_good:
            _say("  " + "\n  ".join([*cell.lost[:20], cell.said]))
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
    rows = [[each.fault, each.step, f"{each.hit} {each.note}"[:60], each.verdict] for each in found]
    figures = {"seed": seed, "seconds": round(time.perf_counter() - began), "cells": [asdict(each) for each in found]}
    report("faults", f"{len(found)} cells, seed {seed}", ["fault", "step", "struck", "after the re-run"], rows, figures)
    if not all(each.is_good for each in found):
        sys.exit(1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    names = [Kill.name, FullDisk.name, NoMemory.name, Damaged.name, ClockJump.name, OTHERS, ENDPOINT, LostNetwork.name]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fault", action="append", choices=names, help="this one alone; repeatable")
    parser.add_argument("--step", action="append", choices=STEPS, help="of these steps alone; repeatable")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file that gets a JSON line for each cell as soon as it is done")
    asked_for = parser.parse_args()
    main(asked_for.fault or names, asked_for.step or list(STEPS), asked_for.seed, asked_for.out)
