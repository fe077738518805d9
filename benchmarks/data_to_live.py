"""Data to live: from a new day's partition to the endpoint that answers with what was learned from it, beside a full run.

    python -m benchmarks.data_to_live [--users 5000] [--items 2000] [--days 100] [--events 2400000] [--quality] [--folder DIR]

A simulated log of so many days. All but the last are one run from scratch; `recsys serve --model demo` serves its champion.
Then the last day arrives, and `recsys daily --endpoint URL` runs in a fresh process. The clock stops when /info has the new
version, which this process asks for every 20 ms. All with one thread. Processor seconds are those of the run's process and,
from there on, of the server's; they are what to compare where the machine does other things, too.
--quality: then the day is trained from scratch (`--full`), and the NDCG@10 of both stand side by side on the same users.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks import measure

OVERRIDES = (
    "data.split={kind: time, valid_days: 1, test_days: 1}",
    "promotion={champion: null, floor: null, slices: {}}",  # a day's users are few: chance would decide whether it goes live
)
STEPS = ("start", "arrive", "prepare", "train", "evaluate", "export", "promote", "reload", "report")
LOOK_EVERY_S = 0.02


def world(folder: str, users: int, items: int, days: int, events: int, drift: float, seed: int) -> None:
    """folder/log, a raw log with a folder for each day."""
    from recsys.simulate import Simulation, simulate

    spec = Simulation(users=users, items=items, days=days, events=events, drift=drift, seed=seed)
    simulate(spec, Path(folder) / "log")


def arrive(folder: Path, days: list[Path]) -> None:
    """Let days of the log come to folder/raw."""
    (folder / "raw/events").mkdir(parents=True, exist_ok=True)
    for table in ("users.parquet", "items.parquet"):
        if not (folder / "raw" / table).exists():
            (folder / "raw" / table).hardlink_to(folder / "log" / table)
    for day in days:
        shutil.copytree(day, folder / "raw/events" / day.name, copy_function=os.link)


def daily(folder: Path, name: str, seed: int, *options: str) -> dict[str, Any]:
    """Run `recsys daily` in a fresh process: its wall and processor seconds, altogether and by step."""
    out = folder / f"{name}.json"
    command = [
        sys.executable, "-m", "benchmarks.data_to_live_day", str(out), "--config", "demo", "--data", str(folder / "raw"),
        "--workspace", str(folder / "root"), "--store", _store(folder), "--set", f"seed={seed}",
        *(part for each in OVERRIDES for part in ("--set", each)), *options,
    ]  # fmt: skip
    began_s = time.time()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(), cwd=Path(__file__).parents[1])
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.time() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"recsys daily ended with status {process.returncode}: see {folder}/{name}.log")
    steps = json.loads(out.read_text())
    return {"began_s": began_s, "wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "steps": steps}


@contextmanager
def endpoint(folder: Path) -> Iterator[tuple[str, int]]:
    """The URL of a server of the champion, and its process."""
    from serving.run import free_port, stop, wait_ready

    port = free_port()
    command = [
        sys.executable, "-c", "from pipelines.cli import main; main()", "serve", "--model", "demo", "--live",
        str(folder / "live"), "--store", _store(folder), "--port", str(port), "--no-page",
    ]  # fmt: skip
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=_environment(), start_new_session=True, cwd=Path(__file__).parents[1]
        )
    try:
        wait_ready(f"http://127.0.0.1:{port}", process=process, log=folder / "serve.log")
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        stop(process)


class Watch(threading.Thread):
    """Looks at /info until the endpoint serves another version than it did."""

    def __init__(self, url: str) -> None:
        from serving.client import Client

        super().__init__(daemon=True)
        self.client = Client(url, retries=0)
        self.before = self.client.info().version
        self.live_s: float | None = None
        self.start()

    def run(self) -> None:
        from recsys.errors import InputError

        while self.live_s is None:
            with suppress(InputError):  # it reloads
                if self.client.info().version != self.before:
                    self.live_s = time.time()
            time.sleep(LOOK_EVERY_S)


def play(folder: Path, seed: int, *, quality: bool) -> dict[str, Any]:
    """The full run, and the day after it. `served`: processor seconds of the server meanwhile."""
    days = sorted((folder / "log/events").iterdir())
    newest = days[-1].name.partition("=")[2]
    arrive(folder, days[:-1])
    found = {"full": daily(folder, "full", seed)}
    with endpoint(folder) as (url, server):
        watch, before_s = Watch(url), _processor_s(server)
        arrive(folder, days[-1:])
        found["day"] = daily(folder, "day", seed, "--endpoint", url)
        if watch.live_s is None:
            sys.exit(f"the day's candidate did not go live: see {folder}/root/days/{newest}/report.md")
        found["day"] |= {"live_s": watch.live_s - found["day"]["began_s"], "server_cpu_s": _processor_s(server) - before_s}
    found["warm"] = _judged(folder, newest)
    if quality:
        kept = folder / "warm-metrics"
        shutil.copytree(folder / f"root/days/{newest}/metrics", kept, dirs_exist_ok=True)
        daily(folder, "retrained", seed, "--full")
        found["retrained"] = _judged(folder, newest)
        found["warm_minus_retrained_NDCG@10"] = _difference(kept, folder / f"root/days/{newest}/metrics")
    return found


def _judged(folder: Path, day: str) -> dict[str, Any]:
    """What the day's candidate and the champion before it reach on the day's test events."""
    state = json.loads((folder / f"root/days/{day}/day.json").read_text())
    detail = state["steps"]["evaluate"]["detail"]
    names = ("NDCG@10", *(name for name in detail["metrics"] if name.startswith("AUC/")))
    return {
        "mode": state["mode"], "why": state["why"], "users": detail["users"], "outcome": state["decision"]["outcome"],
        "candidate": {name: detail["metrics"][name] for name in names},
        "champion_NDCG@10": detail["champion"].get("metrics", {}).get("NDCG@10"),
    }  # fmt: skip


def _difference(warm: Path, retrained: Path) -> dict[str, Any]:
    """Mean over the users of both, and its 95 % interval."""
    from pipelines.per_user import served

    a, b = (served(folder).sort("user")["NDCG@10"] for folder in (warm, retrained))
    difference = (a - b).drop_nulls().to_numpy()
    mean, half = float(difference.mean()), 1.96 * float(difference.std(ddof=1)) / len(difference) ** 0.5
    return {"users": len(difference), "mean": mean, "interval": [mean - half, mean + half]}


def _processor_s(pid: int) -> float:
    """Of a process and those that it started."""
    import psutil

    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(sum(each.cpu_times()[:2]) for each in family))


def _environment() -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(measure.THREADS, "1")}


def _store(folder: Path) -> str:
    return f"sqlite:///{folder.absolute()}/mlflow.db"


def rows(found: dict[str, Any]) -> list[list[str]]:
    """Step, and wall and processor seconds of the full run and of the day, and the day's share of the full run's processor
    seconds. The last step of the day that counts is `reload`."""
    full, day = found["full"], found["day"]
    table = []
    for step in STEPS:
        (a, b), (c, d) = full["steps"][step], day["steps"][step]
        table.append([step, f"{a:.1f}", f"{b:.1f}", f"{c:.1f}", f"{d:.1f}", f"{100 * d / full['cpu_s']:.1f} %"])
    sums = [full["wall_s"], full["cpu_s"], day["wall_s"], day["cpu_s"]]
    table.append(["all of the process", *(f"{each:.1f}" for each in sums), f"{100 * sums[3] / sums[1]:.1f} %"])
    both = day["cpu_s"] + day["server_cpu_s"]
    table.append(["until /info has it; CPU: with the server's", f"{sums[0]:.1f}", f"{sums[1]:.1f}", f"{day['live_s']:.1f}",
                  f"{both:.1f}", f"{100 * both / sums[1]:.1f} %"])  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 5000), ("items", 2000), ("days", 100), ("events", 2_400_000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--drift", type=float, default=0.03)
    parser.add_argument("--quality", action="store_true", help="train the day from scratch, too")
    parser.add_argument("--folder", type=Path, default=measure.DATA / "data_to_live", help="is made anew")
    given = parser.parse_args()
    folder = given.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec = {name: getattr(given, name) for name in ("users", "items", "days", "events", "drift", "seed")}
    measure.call("benchmarks.data_to_live", "world", 1, folder=folder, **spec)
    found = play(folder, given.seed, quality=given.quality)
    share = {
        "wall": found["day"]["live_s"] / found["full"]["wall_s"],
        "cpu": (found["day"]["cpu_s"] + found["day"]["server_cpu_s"]) / found["full"]["cpu_s"],
    }
    columns = ("step", "full: s", "CPU s", "day: s", "CPU s", "of full, CPU")
    title = f"Data to live: one day of {given.days}; {100 * share['wall']:.1f} % of a full run's time"
    measure.report("data_to_live", title, columns, rows(found), {"world": spec, "share": share, **found})


if __name__ == "__main__":
    main()
