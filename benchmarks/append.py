"""A day appended to a dataset of the days before, against a build of all days.

    python -m benchmarks.append [--rows 20000000] [--data FOLDER]

The log of `benchmarks.etl` is cut into 100 days of equal time, `date=YYYY-MM-DD/part.parquet`. Seconds are those of the build.
The first append of a process also pays for first calls and late imports, whatever the size, so it is shown apart.
"""

import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.log import FIRST_MS, log

PARTS = 100
NEW = 4  # days appended one after another in one process
CONFIG: dict[str, Any] = {
    "events": {
        "path": "days", "user": "user_id", "item": "item_id", "time": "timestamp", "arrives": "by_folder",
        "labels": {"click": "event <> 'view'", "buy": "event = 'buy'"},
    },
    "split": {"kind": "time", "valid_days": 7, "test_days": 7},
    "features": {
        "user_clicks_7d": {"kind": "count", "by": ["user"], "event": "click", "window": "7d"},
        "item_click_rate": {
            "kind": "rate", "by": ["item"], "event": "click", "half_life": "7d", "prior": 0.2, "strength": 20,
        },
    },
}  # fmt: skip


def cut(raw: str, out: str) -> list[int]:
    """Write the parts; returns their numbers of rows."""
    from datetime import UTC, datetime, timedelta

    import polars as pl

    events = pl.read_parquet(f"{raw}/events.parquet")  # in order of time
    since_ms = events["timestamp"].dt.epoch("ms") - FIRST_MS
    part = since_ms * PARTS // (since_ms[-1] + 1)
    first = datetime.fromtimestamp(FIRST_MS / 1000, UTC).date()
    partial = Path(out).with_suffix(".partial")
    rows = []
    for number in range(PARTS):
        start, end = part.search_sorted(number, "left"), part.search_sorted(number, "right")
        folder = partial / f"date={first + timedelta(days=number)}"
        folder.mkdir(parents=True, exist_ok=True)
        events.slice(start, end - start).write_parquet(folder / "part.parquet", compression="zstd")
        rows.append(end - start)
    assert sum(rows) == len(events)
    partial.rename(out)
    return rows


def prepare(raw: str, out: str, days: str = "", new: int = 0) -> dict[str, Any]:
    """A build of what lies in `raw`; then, one after another, the appends of the `new` days that follow in `days`."""
    from recsys.data import Data
    from recsys.data.build import build

    data, seconds, cpu_seconds = Data.model_validate(CONFIG), [], []
    for day in range(PARTS - new, PARTS) if new else [None]:
        if day is not None:
            link(Path(days), Path(raw), slice(day, day + 1))
        start, cpu_start = time.perf_counter(), time.process_time()
        manifest = build(data, Path(raw), Path(out))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "inputs": len(manifest["inputs"])}


def count(out: str) -> dict[str, Any]:
    import polars as pl

    timeline = pl.scan_ipc(Path(out) / "timeline" / "*.arrow")
    last = timeline.group_by("user").agg(pl.col("time_ms").max(), pl.len()).collect()
    return {"users": len(last), "events": int(last["len"].sum()), "last_time_sum": last["time_ms"].sum()}


def link(days: Path, raw: Path, parts: slice) -> None:
    """Put some of the days into a raw folder, without a copy."""
    for day in sorted(days.iterdir())[parts]:
        (raw / "days" / day.name).mkdir(parents=True)
        (raw / "days" / day.name / "part.parquet").hardlink_to(day / "part.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.append", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path("benchmarks/out/data"), help="folder for the log and what is made of it (about 4 GB)"
    )
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    measure.stop_without("polars")
    raw = log(args.data.resolve(), args.rows, args.seed, args.threads)
    days, work = raw / "days", raw.parent / f"append-{args.rows}"
    if not days.exists():
        measure.call("benchmarks.append", "cut", args.threads, raw=raw, out=days)
    shutil.rmtree(work, ignore_errors=True)
    link(days, work / "all", slice(None))
    link(days, work / "grown", slice(PARTS - NEW))

    def build(name: str, out: str, **new: Any) -> measure.Measured:
        return measure.call("benchmarks.append", "prepare", args.threads, raw=work / name, out=work / out, **new)

    whole, part = build("all", "whole"), build("grown", "appended")
    appended = build("grown", "appended", days=days, new=NEW)
    first, *rest = appended.result["seconds"]
    counts = [measure.call("benchmarks.append", "count", args.threads, out=work / out).result for out in ("whole", "appended")]
    full, later = whole.result["seconds"][0], statistics.median(rest)
    first_cpu, *rest_cpu = appended.result["cpu_seconds"]
    full_cpu, later_cpu = whole.result["cpu_seconds"][0], statistics.median(rest_cpu)
    rows = [
        (f"all {PARTS} days", full, full_cpu, whole),
        (f"the first {PARTS - NEW}", part.result["seconds"][0], part.result["cpu_seconds"][0], part),
        ("one day appended, the process's first", first, first_cpu, appended),
        ("one day appended, its next", later, later_cpu, appended),
    ]  # fmt: skip
    measure.report(
        "append",
        f"{args.rows:,} events, {args.threads} threads: appending 1 of {PARTS} days costs {later / full:.1%} of a full build, "
        f"{first / full:.1%} where the process has just begun; {later_cpu / full_cpu:.1%} of its CPU time",
        ["build", "seconds", "CPU s", "peak MiB"],
        [[name, f"{seconds:.2f}", f"{cpu:.2f}", f"{each.peak_mib:,}"] for name, seconds, cpu, each in rows],
        {
            "rows": args.rows, "seed": args.seed, "threads": args.threads, "parts": PARTS, "ratio": round(later / full, 4),
            "ratio_of_the_first": round(first / full, 4),
            "ratio_of_cpu": round(later_cpu / full_cpu, 4), "counts_agree": counts[0] == counts[1],
            "runs": {
                name: {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "peak_mib": each.peak_mib}
                for name, seconds, cpu, each in rows
            },
        },
    )  # fmt: skip
    if appended.result["inputs"] != whole.result["inputs"] or counts[0] != counts[1]:
        sys.exit(f"the appended dataset differs from the whole one: {counts[1]} is not {counts[0]}")


if __name__ == "__main__":
    main()
