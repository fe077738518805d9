"""python -m benchmarks.serve                       # everything, some 30 minutes
    python -m benchmarks.serve --parts speed         # beside the graphs alone and a bare app, in one run

Parts: speed, soak (200,000 requests, the model swapped every 10 s), capacity (catalogues x connections x workers).
Server and client share two cores. The catalogue has some 100,000 items, 200 of which are ranked, and MMR reranks.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import measure

PARTS = ("speed", "soak", "capacity")
BARS = {"p50_ms": 6.0, "of_graphs": 2.0, "p99_of_p50": 4.0, "of_bare": 0.6, "growth": 0.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=200_000, help="of the soak")
    parser.add_argument("--rounds", type=int, default=5, help="of the speed part; figures are medians")
    asked = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # servers and clients inherit it
    for part in PARTS:
        if part in asked.parts:
            {"speed": speed, "soak": soak, "capacity": capacity}[part](asked)


def speed(asked: argparse.Namespace) -> None:
    """Each round asks everything in turn, so that a busy minute of the machine meets all of them."""
    from benchmarks.serve import servers, world
    from serving.bundle.bundle import Bundle

    folder = world.make_bundle(asked.items)
    bundle = Bundle.load(folder)
    users = servers.users_of(bundle)
    rounds: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        servers.endpoint(folder) as (port, _),
        servers.bare_app(folder, users, "inline", Path(scratch)) as inline,
        servers.bare_app(folder, users, "threads", Path(scratch)) as threads,
    ):
        for _ in range(asked.rounds):
            rounds.append(
                {
                    "graphs": statistics.median(servers.alone(bundle, users, 1_000)),
                    "one": servers.ask(port, users, 1, total=1_000, expected=['"flags":[]']),
                    "sixteen": servers.ask(port, users, 16, total=6_000, expected=['"flags":[]']),
                    "bare_one": servers.ask(inline, users, 1, total=1_000),
                    "bare_inline": servers.ask(inline, users, 16, total=4_000),
                    "bare_threads": servers.ask(threads, users, 16, total=4_000),
                }
            )
    middle = _middle(rounds)
    columns = ("", "requests/s", "p50 ms", "p99 ms")
    names = {
        "one": "endpoint, 1 connection", "bare_one": "bare app, 1 connection", "sixteen": "endpoint, 16 connections",
        "bare_inline": "bare app, 16 connections", "bare_threads": "bare app with threads, 16 connections",
    }  # fmt: skip
    rows = [("ONNX calls alone", "", f"{middle['graphs']:.2f}", "")]
    rows += [
        (title, f"{middle[name]['per_s']:.0f}", f"{middle[name]['p50']:.2f}", f"{middle[name]['p99']:.2f}")
        for name, title in names.items()
    ]
    best_bare = max(middle["bare_inline"]["per_s"], middle["bare_threads"]["per_s"])
    facts = {
        "p50_ms": middle["one"]["p50"],
        "of_graphs": round(middle["one"]["p50"] / middle["graphs"], 2),
        "p99_of_p50": round(middle["sixteen"]["p99"] / middle["sixteen"]["p50"], 2),
        "of_bare": round(middle["sixteen"]["per_s"] / best_bare, 2),
        "wrong": sum(each[name]["wrong"] for each in rounds for name in ("one", "sixteen")),
    }
    measure.report("serve-speed", f"/recommend, {bundle.facts.num_items - 2:,} items", columns, rows, {**facts, "bars": BARS})


def soak(asked: argparse.Namespace) -> None:
    from benchmarks.serve import soak, world

    with tempfile.TemporaryDirectory() as scratch:
        found = soak.soak(world.make_bundle(asked.items), Path(scratch), requests=asked.requests, connections=16, every_s=10)
    errors = found["requests"] - found["statuses"].get("200", 0) + found["unanswered"]
    rows = [
        ("requests", f"{found['requests']:,}"),
        ("errors", f"{errors}"),
        ("answers with a flag", f"{found['wrong']}"),
        ("swaps of the model", f"{found['swaps']}"),
        ("versions that answered", f"{len(found['versions'])}"),
        ("p50, p99, longest", f"{found['p50']:.1f}, {found['p99']:.1f}, {found['max']:.0f} ms"),
        ("workers' own memory", f"{found['memory_before_mib']:.0f} -> {found['memory_after_mib']:.0f} MiB"),
        ("growth", f"{found['growth']:+.1%}"),
    ]
    measure.report(
        "serve-soak", "16 connections, the model swapped every 10 s", ("", "found"), rows, {**found, "errors": errors}
    )


def capacity(asked: argparse.Namespace) -> None:
    from benchmarks.serve import servers, world
    from serving.bundle.bundle import Bundle

    rows, facts = [], []
    for items in (10_000, 100_000, 1_000_000):
        folder = world.make_bundle(items)
        users = servers.users_of(Bundle.load(folder))
        for workers in (1, 2):
            with servers.endpoint(folder, workers=workers) as (port, processes):
                for connections in (1, 4, 16, 64):
                    found = servers.ask(port, users, connections, total=20_000, seconds=15)
                    memory = servers.resident_mib(processes)
                    rows.append(
                        (f"{items:,}", f"{workers}", f"{connections}", f"{found['per_s']:.0f}", f"{found['p50']:.1f}",
                         f"{found['p99']:.1f}", f"{memory:.0f}")
                    )  # fmt: skip
                    facts.append({"items": items, "workers": workers, "connections": connections, "mib": memory, **found})
    columns = ("items", "workers", "connections", "requests/s", "p50 ms", "p99 ms", "MiB of all workers")
    measure.report("serve-capacity", "Server and client on two cores", columns, rows, {"cells": facts})


def _middle(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every number over the rounds."""
    found: dict[str, Any] = {}
    for name, first in rounds[0].items():
        if isinstance(first, dict):
            found[name] = {key: statistics.median(each[name][key] for each in rounds) for key in ("per_s", "p50", "p99")}
        else:
            found[name] = statistics.median(each[name] for each in rounds)
    return found


if __name__ == "__main__":
    main()
