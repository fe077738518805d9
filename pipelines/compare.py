"""Runs of an experiment side by side: which is best, where that can be said, and which lie below their floor."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from recsys.errors import InputError
from recsys.track import COMMIT, DATA, PROTOCOL, RunSummary, list_runs

DEFAULT_METRICS = ("test/*", "floor/*", "export/*")
RUNS_PER_TABLE = 6

# What a metric's name says of its direction; a metric of another name is shown and not ranked.
HIGHER_IS_BETTER = {"ndcg", "hr", "recall", "precision", "mrr", "map", "auc", "gauc", "coverage"}
LOWER_IS_BETTER = {"loss", "logloss", "ece", "brier", "rmse", "mae", "parity_max_error"}

STATUS_STYLE = {"FINISHED": "green", "RUNNING": "yellow", "FAILED": "red", "KILLED": "red"}


@dataclass(frozen=True)
class Row:
    """One metric over the runs, in their order."""

    metric: str
    values: tuple[float | None, ...]
    best: frozenset[int]  # places of the best finished run of each protocol, where their values differ
    below_floor: frozenset[int]  # places of runs that a floor equals or beats


@dataclass(frozen=True)
class Comparison:
    experiment: str
    runs: tuple[RunSummary, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same content for machines: a value that is missing or not finite is null."""
        return {
            "experiment": self.experiment,
            "warnings": list(self.warnings),
            "runs": [
                {
                    "id": run.id,
                    "name": run.name,
                    "status": run.status,
                    "start": run.start.isoformat(),
                    "duration_s": run.duration_s,
                    "tags": run.tags,
                    "metrics": {row.metric: _finite(row.values[place]) for row in self.rows},
                    "best": [row.metric for row in self.rows if place in row.best],
                    "below_floor": [row.metric for row in self.rows if place in row.below_floor],
                }
                for place, run in enumerate(self.runs)
            ],
        }


def compare(
    experiment: str,
    *,
    runs: Sequence[str] = (),
    metrics: Sequence[str] = (),
    limit: int = RUNS_PER_TABLE,
    uri: str | None = None,
) -> Comparison:
    """The named runs in the order given, or else the newest `limit` ones.

    `runs` holds names or, where no run is named so, beginnings of ids; `metrics` holds patterns such as `test/NDCG*`, by
    default test, floor and export metrics. Raises InputError where the store, the experiment, a run or a pattern's metric
    is not there.
    """
    known = list_runs(experiment, uri=uri)
    if not known:
        raise InputError(f"The experiment {experiment!r} has no runs: train a model first")
    chosen = _choose(known, runs) if runs else known[:limit]
    names = _metric_names(chosen, metrics)
    return Comparison(experiment, tuple(chosen), tuple(_row(chosen, name) for name in names), tuple(_warnings(chosen)))


def render(comparison: Comparison) -> Group:
    """The comparison for a rich console: metrics as rows, up to six runs as columns of a table, then the warnings."""
    starts = range(0, len(comparison.runs), RUNS_PER_TABLE)
    tables = [_table(comparison, start) for start in starts]
    legend = "[bold green]★[/] best of its protocol and data   [red]▼[/] not above its floor   - not measured"
    return Group(*tables, legend, *(f"[bold yellow]warning:[/] {escape(warning)}" for warning in comparison.warnings))


def direction(metric: str) -> int:
    """+1 where more is better, -1 where less is, 0 where the name does not say or it is a floor's."""
    parts = [part.partition("@")[0].lower() for part in metric.split("/")]
    if parts[0] == "floor":
        return 0
    return next((1 if part in HIGHER_IS_BETTER else -1 for part in parts if part in HIGHER_IS_BETTER | LOWER_IS_BETTER), 0)


def _choose(known: Sequence[RunSummary], wanted: Sequence[str]) -> list[RunSummary]:
    chosen: dict[str, RunSummary] = {}
    for each in wanted:
        found = [run for run in known if run.name == each] or [run for run in known if run.id.startswith(each)]
        if not found:
            names = ", ".join(dict.fromkeys(run.name for run in known[:20]))
            raise InputError(f"No run is named {each!r} or has an id that begins so: choose among {names}")
        chosen |= {run.id: run for run in found}
    return list(chosen.values())


def _metric_names(runs: Sequence[RunSummary], patterns: Sequence[str]) -> list[str]:
    """Names in order of the patterns; without patterns the default ones, or all where no run has any of those."""
    names = sorted({name for run in runs for name in run.metrics})
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"No metric of these runs matches {pattern!r}: choose among {', '.join(names) or 'none'}")
    matching = [name for pattern in patterns or DEFAULT_METRICS for name in names if fnmatchcase(name, pattern)]
    return list(dict.fromkeys(matching)) or names


def _row(runs: Sequence[RunSummary], metric: str) -> Row:
    values = tuple(run.metrics.get(metric) for run in runs)
    sign = direction(metric)
    below = [place for place, run in enumerate(runs) if sign and _below_floor(run, metric, sign)]
    return Row(metric, values, frozenset(_best(runs, values, sign)), frozenset(below))


def _below_floor(run: RunSummary, metric: str, sign: int) -> bool:
    split, _, bare = metric.partition("/")
    value = run.metrics.get(metric)
    return split == "test" and value is not None and any(sign * value <= sign * floor for floor in run.floors(bare).values())


def _best(runs: Sequence[RunSummary], values: Sequence[float | None], sign: int) -> list[int]:
    """Places of the best value of each protocol on each dataset, among finished runs; ties share it, unless all tie."""
    groups: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for place, (run, value) in enumerate(zip(runs, values, strict=True)):
        if value is not None and math.isfinite(value) and run.status == "FINISHED" and sign:
            groups[_protocol(run)][place] = sign * value
    rankable = (group for group in groups.values() if len(set(group.values())) > 1)
    return [place for group in rankable for place, value in group.items() if value == max(group.values())]


def _protocol(run: RunSummary) -> tuple[str, str]:
    return run.tags.get(PROTOCOL, ""), run.tags.get(DATA, "")


def _warnings(runs: Sequence[RunSummary]) -> list[str]:
    found = []
    for tag, meaning in ((PROTOCOL, "protocols"), (DATA, "datasets")):
        values = dict.fromkeys(run.tags.get(tag, "not stated") for run in runs)
        if len(values) > 1:
            found.append(f"the runs have different {meaning} ({'; '.join(values)}): the best is marked within each only")
    if unfinished := [f"{run.name} {run.status}" for run in runs if run.status != "FINISHED"]:
        found.append(f"not finished, so shown and not ranked: {', '.join(unfinished)}")
    return found


def _table(comparison: Comparison, start: int) -> Table:
    places = range(start, min(start + RUNS_PER_TABLE, len(comparison.runs)))
    runs = [comparison.runs[place] for place in places]
    table = Table(title=f"Experiment {escape(comparison.experiment)}", title_justify="left")
    table.add_column("", no_wrap=True)
    for run in runs:
        table.add_column(f"{escape(run.name)}\n[dim]{run.id[:8]}[/]", justify="right", overflow="fold")
    table.add_row("status", *(f"[{STATUS_STYLE.get(run.status, 'yellow')}]{run.status.lower()}[/]" for run in runs))
    table.add_row("duration", *("-" if run.duration_s is None else f"{run.duration_s:,.0f} s" for run in runs))
    for tag in (PROTOCOL, DATA, COMMIT):
        table.add_row(tag, *(escape(run.tags.get(tag, "-")) for run in runs))
    table.add_section()
    for row in comparison.rows:
        cells = (_cell(row, place) for place in places)
        table.add_row(escape(row.metric), *cells, style="dim" if row.metric.startswith("floor/") else None)
    return table


def _cell(row: Row, place: int) -> str:
    value = row.values[place]
    if value is None:
        return "-"
    text = f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"
    text = f"[bold green]★ {text}[/]" if place in row.best else text
    return f"[red]▼[/] {text}" if place in row.below_floor else text


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
