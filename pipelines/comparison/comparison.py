"""What a comparison of runs holds. `pipelines.comparison.runs` makes it; the terminal, the page and JSON show it."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from recsys.track import RunSummary

RUNS_PER_TABLE = 6  # of a table with metrics as rows; with more, runs are the rows


@dataclass(frozen=True)
class Difference:
    """A run minus its group's reference, on one metric: mean over the users that both judged, with its 95 % interval.

    The interval and `p` are of one test (`recsys.metrics.significance.bootstrap_tests`) and not corrected for other runs.
    """

    mean: float
    low: float
    high: float
    p: float  # paired bootstrap
    p_t: float | None  # paired t test; None where it was not made, as of many runs for other metrics than the main one
    p_wilcoxon: float | None  # signed ranks
    p_holm: float  # `p` corrected for the group's comparisons on this metric: against a named reference, or of all pairs
    users: int
    wins: int  # users for whom the run is better, by the metric's direction
    losses: int
    better: bool = True  # by the metric's direction

    @property
    def shown(self) -> bool:
        return self.p_holm < 0.05


@dataclass(frozen=True)
class Cell:
    """One metric of one run."""

    value: float | None  # None where the run has not measured it
    low: float | None = None  # 95 % interval over users; None where the run has no per-user values of it
    high: float | None = None
    best: bool = False  # of its group's finished runs, where their values differ
    below_floor: bool = False  # a floor equals or beats it
    difference: Difference | None = None  # None for the reference, and without per-user values


@dataclass(frozen=True)
class Row:
    """One metric over the runs, in their order. `direction`: 1 where more is better, -1 where less is, 0 where nobody knows."""

    metric: str
    direction: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """Runs that may stand in one ranking: the same protocol on the same data."""

    protocol: str  # the tag, or "not stated"
    data: str  # fingerprint, or "not stated"
    places: tuple[int, ...]  # of the runs
    reference: int | None  # the place of the run that the others are held against; None where no run can be ranked
    chosen: str = ""  # why it is the reference
    hypotheses: int = 0  # what Holm's correction counts for each metric: the others, or all pairs where the best was chosen


@dataclass(frozen=True)
class Consensus:
    """The runs' names ordered over several tasks or data sets. `points`: Borda; `mean`: of the metric, beside it."""

    over: tuple[str, ...]  # what votes
    order: tuple[str, ...]  # best first
    points: dict[str, float]
    mean: dict[str, float]  # empty where what votes has no common unit
    direction: int = 1  # of the mean: 1 where more is better, -1 where less is
    level: str = "tasks"  # or "users": each task's ranking is a vote of its users


@dataclass(frozen=True)
class Comparison:
    experiment: str
    main_metric: str
    runs: tuple[RunSummary, ...]
    rows: tuple[Row, ...]
    groups: tuple[Group, ...]
    warnings: tuple[str, ...]
    notes: tuple[tuple[str, ...], ...] = field(default=())  # of each run: what it lacks, in words
    consensus: Consensus | None = None
    changes: tuple[dict[str, str], ...] = field(default=())  # of each run: parameters that are not as in most runs

    def row(self, metric: str) -> Row | None:
        return next((row for row in self.rows if row.metric == metric), None)

    def to_json(self) -> dict[str, Any]:
        """The same content for machines: a value that is missing or not finite is null."""
        return {
            "experiment": self.experiment,
            "main_metric": self.main_metric,
            "warnings": list(self.warnings),
            "groups": [asdict(group) for group in self.groups],
            "consensus": None if self.consensus is None else asdict(self.consensus),
            "runs": [
                {
                    "id": run.id,
                    "name": run.name,
                    "status": run.status,
                    "start": run.start.isoformat(),
                    "duration_s": run.duration_s,
                    "tags": run.tags,
                    "notes": list(self.notes[place]) if self.notes else [],
                    "changes": self.changes[place] if self.changes else {},
                    "metrics": {row.metric: _finite(row.cells[place].value) for row in self.rows},
                    "intervals": {
                        row.metric: [row.cells[place].low, row.cells[place].high]
                        for row in self.rows
                        if row.cells[place].low is not None
                    },
                    "differences": {
                        row.metric: asdict(difference)
                        for row in self.rows
                        if (difference := row.cells[place].difference) is not None
                    },
                    "best": [row.metric for row in self.rows if row.cells[place].best],
                    "below_floor": [row.metric for row in self.rows if row.cells[place].below_floor],
                }
                for place, run in enumerate(self.runs)
            ],
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
