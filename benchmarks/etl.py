"""From a raw log to a dataset: Polars' floor, DuckDB's SQL for the same steps, and ours, minimal and complete.

    python -m benchmarks.etl [--rows 20000000] [--data FOLDER]

Floor: scan, sort by user and time, write. DuckDB and ours minimal: drop items with fewer than 5 events, then users with fewer
than 5 of what is left; dense ids; the last event of each user held out; the others as time-ordered lists. Ours complete adds
labels, point-in-time features, all validation rules, a split by time and the data-quality report.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.log import log

MIN_EVENTS = 5
MINIMAL: dict[str, Any] = {
    "events": {"path": "events.parquet", "user": "user_id", "item": "item_id", "time": "timestamp"},
    "filters": {"min_user_events": MIN_EVENTS, "min_item_events": MIN_EVENTS, "iterate": False},
    "split": {"kind": "leave_one_out"},
}
COMPLETE: dict[str, Any] = {
    "events": {**MINIMAL["events"], "labels": {"click": "event <> 'view'", "buy": "event = 'buy'"}},
    "filters": MINIMAL["filters"],
    "split": {"kind": "time"},
    "features": {
        "user_clicks_7d": {"kind": "count", "by": ["user"], "event": "click", "window": "7d"},
        "item_clicks_30d": {"kind": "count", "by": ["item"], "event": "click", "window": "30d"},
        "item_click_rate": {
            "kind": "rate", "by": ["item"], "event": "click", "half_life": "7d", "prior": 0.2, "strength": 20,
        },
        "user_recency": {"kind": "recency", "by": ["user"], "event": "all"},
        "session_position": {"kind": "session_position"},
    },
}  # fmt: skip
RUNS = {"floor": "floor", "duckdb": "DuckDB", "minimal": "ours, minimal", "complete": "ours, complete"}
OURS = ("minimal", "complete")
COUNTS = ("users", "items", "events", "last_time_sum")


def floor(raw: str, out: str) -> None:
    import polars as pl

    events = pl.scan_parquet(Path(raw) / "events.parquet")
    events.sort("user_id", "timestamp").sink_parquet(Path(out) / "sorted.parquet", compression="zstd", engine="streaming")


def duckdb(raw: str, out: str) -> None:
    import duckdb

    threads = int(os.environ["POLARS_MAX_THREADS"])  # of every library here
    options: dict[str, Any] = {"threads": threads, "preserve_insertion_order": False, "temp_directory": f"{out}/spill"}
    duckdb.connect(config=options).execute(f"""
        CREATE VIEW log AS SELECT user_id, item_id, timestamp FROM '{raw}/events.parquet';
        CREATE TABLE kept AS SELECT item_id FROM log GROUP BY item_id HAVING count(*) >= {MIN_EVENTS};
        CREATE TABLE users AS
            SELECT user_id, row_number() OVER () - 1 AS user FROM log SEMI JOIN kept USING (item_id)
            GROUP BY user_id HAVING count(*) >= {MIN_EVENTS};
        CREATE TABLE items AS
            SELECT item_id, row_number() OVER () - 1 AS item
            FROM log SEMI JOIN kept USING (item_id) SEMI JOIN users USING (user_id) GROUP BY item_id;
        CREATE TABLE events AS
            SELECT user, item, timestamp, row_number() OVER (PARTITION BY user ORDER BY timestamp DESC) = 1 AS is_last
            FROM log JOIN users USING (user_id) JOIN items USING (item_id);
        COPY users TO '{out}/users.parquet' (FORMAT parquet, COMPRESSION zstd);
        COPY items TO '{out}/items.parquet' (FORMAT parquet, COMPRESSION zstd);
        COPY (FROM events WHERE is_last) TO '{out}/held_out.parquet' (FORMAT parquet, COMPRESSION zstd);
        COPY (SELECT user, list(item ORDER BY timestamp) AS items FROM events WHERE NOT is_last GROUP BY user)
            TO '{out}/histories.parquet' (FORMAT parquet, COMPRESSION zstd);
    """)


def minimal(raw: str, out: str, engine: dict[str, Any]) -> None:
    _prepare(MINIMAL, raw, out, engine)


def complete(raw: str, out: str, engine: dict[str, Any]) -> None:
    _prepare(COMPLETE, raw, out, engine)


def _prepare(config: dict[str, Any], raw: str, out: str, engine: dict[str, Any]) -> None:
    from recsys.data import Data, engines
    from recsys.data.build import build

    build(Data.model_validate(config), Path(raw), Path(out) / "dataset", engine=engines.engine(**engine))


def count_duckdb(out: str) -> dict[str, int]:
    import polars as pl

    held_out = pl.read_parquet(f"{out}/held_out.parquet")
    held_in = pl.scan_parquet(f"{out}/histories.parquet").select(pl.col("items").list.len().sum()).collect().item()
    return {
        "users": pl.scan_parquet(f"{out}/users.parquet").select(pl.len()).collect().item(),
        "items": pl.scan_parquet(f"{out}/items.parquet").select(pl.len()).collect().item(),
        "events": held_in + len(held_out),
        "last_time_sum": held_out["timestamp"].cast(pl.Datetime("ms")).to_physical().sum(),
    }


def count_ours(out: str) -> dict[str, int]:
    """From the files of the dataset, as docs/dataset.md describes them."""
    import polars as pl

    folder = Path(out) / "dataset"
    timeline = pl.scan_ipc(folder / "timeline" / "*.arrow")
    last = timeline.group_by("user").agg(pl.col("time_ms").max(), pl.len()).collect()
    lengths = pl.scan_ipc(folder / "users.arrow").select(pl.col("length").sum()).collect().item()
    assert lengths == last["len"].sum(), "users.arrow and the timeline disagree on the number of events"
    return {
        "users": len(last),
        "items": pl.scan_ipc(folder / "items.arrow").select(pl.col("item_id").count()).collect().item(),
        "events": int(last["len"].sum()),
        "last_time_sum": last["time_ms"].sum(),
    }


def run(name: str, raw: Path, folder: Path, threads: int, engine: dict[str, Any]) -> measure.Measured:
    """One run into a new folder; its result are the counts of what it wrote."""
    out = folder / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    ours = {"engine": engine} if name in OURS else {}
    measured = measure.call("benchmarks.etl", name, threads, raw=raw, out=out, **ours)
    counts = None
    if name != "floor":
        count = "count_ours" if name in OURS else "count_duckdb"
        counts = measure.call("benchmarks.etl", count, threads, out=out).result
    return measure.Measured(measured.seconds, measured.cpu_seconds, measured.peak_mib, counts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.etl", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path("benchmarks/out/data"), help="folder for the log and what is made of it (about 4 GB)"
    )
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=1, help="rounds; seconds are medians, peaks the highest")
    parser.add_argument("--engine", default="threads", help="of our runs: threads, processes or ray")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    args = parser.parse_args()
    measure.stop_without("polars", *(["duckdb"] if "duckdb" in args.runs else []))
    raw = log(args.data.resolve(), args.rows, args.seed, args.threads)
    folder, engine = raw.parent / f"etl-{args.rows}", {"kind": args.engine, "workers": args.workers}
    rounds = [{name: run(name, raw, folder, args.threads, engine) for name in args.runs} for _ in range(args.repeat)]
    measured = {name: measure.middle([each[name] for each in rounds]) for name in args.runs}
    agree = len({tuple(each.result[count] for count in COUNTS) for each in measured.values() if each.result}) <= 1
    _report(args, measured, agree)
    if not agree:
        sys.exit("the runs disagree on what the log holds: compare the counts above")


def _report(args: argparse.Namespace, measured: dict[str, measure.Measured], agree: bool) -> None:
    base = measured.get("duckdb")
    ratios = {name: round(each.seconds / base.seconds, 2) for name, each in measured.items()} if base else {}
    measure.report(
        "etl",
        f"{args.rows:,} events, {args.threads} threads; counts {'agree' if agree else 'DIFFER'}",
        ["run", "seconds", "x DuckDB", "peak MiB", *COUNTS[:3]],
        [
            [
                RUNS[name], f"{each.seconds:.1f}", f"{ratios[name]:.2f}" if base else "-", f"{each.peak_mib:,}",
                *(f"{each.result[count]:,}" if each.result else "-" for count in COUNTS[:3]),
            ]
            for name, each in measured.items()
        ],
        {
            "rows": args.rows, "seed": args.seed, "threads": args.threads, "repeat": args.repeat, "engine": args.engine,
            "workers": args.workers, "counts_agree": agree,
            "runs": {name: {**each.numbers(), **(each.result or {})} for name, each in measured.items()},
            "ratio_to_duckdb": ratios,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
