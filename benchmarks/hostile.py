"""Does the endpoint stand requests that nobody should send? `python -m benchmarks.hostile --requests 100000`

Kinds of attack run at once in several processes, beside slow connections that drip bytes, and an honest caller whose lists
must keep coming. Fails (exit code 1) on any status of 500 or more other than the documented 503, on an answer that the OpenAPI
document does not have, on a worker that ended, on memory that grew, on an honest caller without a list.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

from benchmarks.hostile_client import SlowClients, Tally, attack
from benchmarks.hostile_schema import from_document
from benchmarks.measure import report, stop_without
from recsys.errors import InputError
from serving.client import Client, ServerError
from serving.run import running_service

ROUNDS = 10
SCHEMA_SHARE = 0.05  # of the requests: schemathesis takes some 10 ms to think of one
MAX_GROWTH = 0.05  # of the workers' memory after the first rounds
SETTINGS: dict[str, Any] = {"workers": 2, "header_timeout_s": 1.0, "request_timeout_s": 1.0}


class Honest(threading.Thread):
    """Asks for a list ten times a second. `times_s`: how long each took; `failed`: what came instead."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.times_s, self.failed, self.over = url, list[float](), list[str](), threading.Event()

    def run(self) -> None:
        client = Client(self.url, retries=0, timeout_s=10)
        while not self.over.wait(0.1):
            began = time.perf_counter()
            try:
                answer = client.recommend(user_id="user-1", k=5)
            except (InputError, ServerError) as error:
                self.failed.append(str(error))
                continue
            self.times_s.append(time.perf_counter() - began)
            if len(answer.items) != 5 or "model_failed" in answer.flags:
                self.failed.append(f"{len(answer.items)} items, flags {answer.flags}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--bundle", type=Path, default=Path("runs/demo/bundle"))
    parser.add_argument("--processes", type=int, default=3, help="that send at once")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    stop_without("schemathesis")
    with tempfile.TemporaryDirectory() as live, running_service(arguments.bundle, live=Path(live), **SETTINGS) as url:
        found = run(url, arguments.requests, arguments.processes, arguments.seed)
    show(found)
    for each in found["harm"]:
        print(each, file=sys.stderr)
    sys.exit(1 if found["harm"] else 0)


def run(url: str, count: int, processes: int, seed: int) -> dict[str, Any]:
    """All requests, in rounds after which memory is looked at."""
    workers, tally, memory_mib = worker_processes(url), Tally(), []
    slow, honest = SlowClients(url), Honest(url)
    slow.start()
    honest.start()
    began = time.monotonic()
    with urlopen(f"{url}/docs.json") as response:
        document = json.load(response)
    own, of_schema = round(count * (1 - SCHEMA_SHARE) / ROUNDS / processes), round(count * SCHEMA_SHARE / ROUNDS)
    with ProcessPoolExecutor(processes + 1) as pool:
        for turn in range(ROUNDS):
            seeds = [seed * 1_000_000 + turn * 1_000 + number for number in range(processes)]
            jobs = [pool.submit(attack, url, own, each) for each in seeds]
            jobs.append(pool.submit(from_document, url, document, of_schema, seeds[0]))
            for job in jobs:
                tally.merge(job.result())
            memory_mib.append(sum(psutil.Process(pid).memory_info().rss for pid in workers if psutil.pid_exists(pid)) >> 20)
    seconds = time.monotonic() - began
    for thread in (slow, honest):
        thread.over.set()
        thread.join(20)
    warm = memory_mib[ROUNDS // 3]
    harm = list(dict.fromkeys(tally.harm)) + [f"an honest caller got: {each}" for each in honest.failed[:5]]
    if worker_processes(url) != workers:
        harm.append(f"workers {sorted(workers)} became {sorted(worker_processes(url))}")
    if memory_mib[-1] > warm * (1 + MAX_GROWTH):
        harm.append(f"memory grew from {warm} to {memory_mib[-1]} MiB")
    if slow.ended == 0:
        harm.append("no slow connection was ended")
    return {
        "tally": tally, "harm": harm, "seconds": seconds, "memory_mib": memory_mib, "honest_s": honest.times_s,
        "slow_ended": slow.ended, "slow_held_s": slow.held_s,
    }  # fmt: skip


def worker_processes(url: str) -> set[int]:
    """Processes of our server that hold the model."""
    port = url.rsplit(":", 1)[1]
    parents = [child for child in psutil.Process(os.getpid()).children() if port in child.cmdline()]
    family = [process for parent in parents for process in parent.children(recursive=True)]
    return {process.pid for process in family if "--worker-id" in process.cmdline()}


def show(found: dict[str, Any]) -> None:
    tally, honest_ms = found["tally"], sorted(each * 1000 for each in found["honest_s"])
    rows = [
        [kind, f"{sum(counter.values()):,}", ", ".join(f"{name}: {number:,}" for name, number in sorted(counter.items()))]
        for kind, counter in tally.counts.items()
    ]
    p50, p99 = statistics.median(honest_ms), honest_ms[int(len(honest_ms) * 0.99)]
    facts = {
        "requests": tally.total(), "seconds": round(found["seconds"], 1), "statuses": dict(sorted(tally.statuses().items())),
        "harm": len(found["harm"]), "memory_mib": found["memory_mib"], "honest_lists": len(honest_ms),
        "honest_p50_ms": round(p50, 1), "honest_p99_ms": round(p99, 1), "slow_ended": found["slow_ended"],
        "slow_held_s": round(found["slow_held_s"], 1),
    }  # fmt: skip
    title = f"{tally.total():,} hostile requests in {found['seconds']:.0f} s: {len(found['harm'])} did harm"
    report("hostile", title, ["kind", "requests", "outcomes"], rows, facts)


if __name__ == "__main__":
    main()
