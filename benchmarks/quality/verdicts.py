"""What seeds of an entry reached, beside what is expected, the floor and what is published. Shapes: U = users, S = seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.quality.entries import Entry, Known
from benchmarks.quality.seeds import Trained
from recsys.metrics.significance import mean_interval

Verdict = Literal["within", "below", "above", "missing", "shown"]
DRAWS = 500


@dataclass(frozen=True)
class Row:
    """`interval` is over users and of the mean of seeds; `spread` is the standard deviation over seeds; `floor` the best."""

    metric: str
    verdict: Verdict
    mean: float | None
    spread: float | None
    seeds: tuple[float, ...]
    interval: tuple[float, float] | None
    expected: Known | None
    floor: tuple[str, float] | None
    published: dict[str, float]

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "expected": self.expected.model_dump() if self.expected else None}


def rows(entry: Entry, trained: Sequence[Trained]) -> list[Row]:
    return [row(entry, name, trained) for name in (*entry.expected, *entry.shown)]


def row(entry: Entry, name: str, trained: Sequence[Trained]) -> Row:
    known = entry.expected.get(name)
    value_S = tuple(each.metrics[name] for each in trained if name in each.metrics)
    whole = len(value_S) == len(trained)
    return Row(
        name, verdict(value_S, known) if whole else "missing", statistics.fmean(value_S) if value_S else None,
        statistics.stdev(value_S) if len(value_S) > 1 else None, value_S, _interval(name, trained) if whole else None, known,
        _floor(name, trained), {each.method: each.metrics[name] for each in entry.published if name in each.metrics},
    )  # fmt: skip


def verdict(value_S: Sequence[float], known: Known | None) -> Verdict:
    """Within: every seed is. A tolerance is that of one training, so a mean of seeds may not hide one that failed."""
    if known is None:
        return "shown"
    outside = [value for value in value_S if not abs(value - known.value) <= known.tolerance]
    if not outside:
        return "within"
    return "above" if all(value > known.value for value in outside) else "below"


def _floor(name: str, trained: Sequence[Trained]) -> tuple[str, float] | None:
    """The best floor's metric of the same name; no interval and no floor of a floor."""
    bare = name.removeprefix("test/")
    found = {
        key.split("/")[1]: value
        for key, value in trained[0].metrics.items()
        if name.startswith("test/") and key.startswith("floor/") and key.split("/", 2)[2] == bare
    }
    return max(found.items(), key=lambda each: each[1]) if found else None


def _interval(name: str, trained: Sequence[Trained]) -> tuple[float, float] | None:
    """95 %, over users drawn anew: of each user's mean over seeds, or the mean of the ends that evaluation gave for an AUC."""
    base, _, task = name.removeprefix("test/").partition("/")
    ends = [tuple(each.metrics.get(f"test/{base}_{end}/{task}", np.nan) for end in ("low", "high")) for each in trained]
    if np.isfinite(ends).all():
        low, high = np.mean(ends, axis=0).tolist()
        return low, high
    tables = [each.per_user for each in trained if name.startswith("test/") and not task]
    if not tables or base not in tables[0].columns:
        return None
    value_U = np.mean([table[base].to_numpy() for table in tables], axis=0)
    known_U = np.isfinite(value_U)  # a metric may not exist for a user
    return mean_interval(value_U[known_U], replicates=DRAWS, rng=np.random.default_rng(0)) if known_U.any() else None
