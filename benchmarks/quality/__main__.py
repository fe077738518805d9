"""The quality leaderboard: train what each entry says, and hold it against what is expected, the floor and the published.

    python -m benchmarks.quality --data path/to/data --only kuairand --seeds 3

What is trained is kept in --workspace and not trained again while its config stays the same; remove its folder for that. Exit
code 1 where a metric is outside its tolerance, to either side: better values are to be written down, too.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.quality.entries import Entry, entries
from benchmarks.quality.seeds import Trained, raw_folder, run_seed
from benchmarks.quality.verdicts import Row, rows
from benchmarks.table import publish
from recsys.errors import InputError
from recsys.protocol import Protocol

COLUMNS = ("metric", "ours", "95 % over users", "expected", "best floor", "published", "verdict")


def judge(name: str, entry: Entry, data: Path, work: Path, seeds: int) -> tuple[list[Row], list[Trained]]:
    raw = raw_folder(entry, data, work)
    trained = []
    for seed in range(1, seeds + 1):
        each = run_seed(entry, raw, work / f"{name}-{seed}", seed)
        how = f"kept, of commit {each.commit}" if each.kept else f"{each.minutes:.1f} minutes"
        print(f"{name} seed {seed}: {how}", file=sys.stderr, flush=True)
        trained.append(each)
    return rows(entry, trained), trained


def cells(row: Row) -> list[str]:
    ours = "missing" if row.mean is None else f"{row.mean:.4f}" + (f" ± {row.spread:.4f}" if row.spread is not None else "")
    interval = f"{row.interval[0]:.4f} to {row.interval[1]:.4f}" if row.interval else ""
    expected = f"{row.expected.value:.4f} ± {row.expected.tolerance:.4f}" if row.expected else ""
    floor = f"{row.floor[1]:.4f} ({row.floor[0]})" if row.floor else ""
    best = max(row.published.items(), key=lambda each: each[1], default=None)
    return [row.metric, ours, interval, expected, floor, f"{best[1]:.4f} ({best[0]})" if best else "", row.verdict]


def title(entry: Entry, seeds: int) -> str:
    now = Protocol.of(entry.load(1)).line
    changed = "" if now == entry.protocol else f"; WAS MEASURED BY {entry.protocol}"
    return f"{entry.title}, {seeds} seed{'s' * (seeds != 1)}, {now}{changed}"


def main(words: Sequence[str] | None = None) -> int:
    known = entries()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets' folders")
    parser.add_argument("--only", nargs="+", choices=list(known), default=list(known), help="entries")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each entry, with seeds from 1 on")
    parser.add_argument("--workspace", type=Path, default=measure.OUT / "quality", help="where trainings are kept")
    args = parser.parse_args(words)
    tables, facts, outside = [], {}, []
    for name in args.only:
        try:
            found, trained = judge(name, known[name], args.data, args.workspace, args.seeds)
        except InputError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            outside.append(name)
            continue
        tables.append((title(known[name], args.seeds), COLUMNS, [cells(row) for row in found]))
        facts[name] = _facts(found, trained)
        outside += [f"{name} {row.metric} is {row.verdict}" for row in found if row.verdict not in ("within", "shown")]
    publish("quality", tables, {"seeds": args.seeds, "entries": facts, "outside": outside})
    return 1 if outside else 0


def _facts(found: Sequence[Row], trained: Sequence[Trained]) -> dict[str, Any]:
    minutes = [round(each.minutes, 2) for each in trained]
    return {"minutes": minutes, "commits": sorted({each.commit for each in trained}), "rows": [row.facts() for row in found]}


if __name__ == "__main__":
    sys.exit(main())
