"""The table of runs on the comparison's page, one for each group of runs that may stand in one ranking."""

from dataclasses import dataclass
from typing import Any

from pipelines.comparison.comparison import Cell, Comparison, Row
from pipelines.comparison.details import best_first
from pipelines.comparison.page_data import COSTS

METRIC_COLUMNS = 7
FAMILIES = ("NDCG", "HR", "MRR", "Recall", "AUC", "GAUC", "LogLoss", "ECE", "coverage")  # in the order of the columns


@dataclass(frozen=True)
class Column:
    title: str
    note: str = ""  # under the title


@dataclass(frozen=True)
class Shown:
    """A cell: what is read, what is sorted by, and its marks."""

    text: str
    number: float | None = None
    interval: str = ""
    best: bool = False
    below_floor: bool = False
    change: str = ""  # better, worse: than the reference, beyond chance
    title: str = ""


@dataclass(frozen=True)
class Line:
    place: int
    reference: bool
    cells: tuple[Shown, ...]


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def tables(comparison: Comparison, content: dict[str, Any]) -> list[Table]:
    """A table for each group, the best run by the main metric first."""
    rows, priced = main_rows(comparison), list(content["costs"])
    heads = [Column(row.metric.removeprefix("test/"), _note(row.direction)) for row in rows]
    heads += [Column(*COSTS[name]) for name in priced]
    made = []
    for group in comparison.groups:
        lines = []
        for place in best_first(comparison, group.places):
            spent = content["runs"][place]["costs"]
            cells = [_metric(row, row.cells[place]) for row in rows] + [_cost(name, spent.get(name)) for name in priced]
            lines.append(Line(place, place == group.reference, tuple(cells)))
        made.append(Table(tuple(heads), tuple(lines)))
    return made


def main_rows(comparison: Comparison) -> list[Row]:
    """The main metric, then one of each family, of the main metric's K where there is one; the page has the others apart."""
    cut = comparison.main_metric.partition("@")[2]
    tested = [row for row in comparison.rows if row.metric.startswith("test/")]
    found = {row.metric: row for row in tested if row.metric == comparison.main_metric}
    for family in FAMILIES:
        of_it = [row for row in tested if row.metric.removeprefix("test/").replace("/", "@").split("@")[0] == family]
        same = [row for row in of_it if row.metric.partition("@")[2] == cut and "@" in row.metric]
        whole = [row for row in of_it if "@" not in row.metric]
        already = any(row.metric in found for row in of_it)
        found |= {row.metric: row for row in ([] if already else (same[:1] or of_it[:1])) + whole}
    return list(found.values())[:METRIC_COLUMNS] or list(comparison.rows[:METRIC_COLUMNS])


def number(value: float) -> str:
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def _note(direction: int) -> str:
    return "less is better" if direction < 0 else ""


def _metric(row: Row, cell: Cell) -> Shown:
    if cell.value is None:
        return Shown("-", title="not measured by this run")
    change = cell.difference
    said = "" if change is None else (
        f"{change.mean:+.4f} ({change.low:+.4f} to {change.high:+.4f}) against the reference, "
        f"{change.users:,} users, p {change.p_holm:.3g} after Holm's correction"
    )  # fmt: skip
    sign = 0 if change is None or not change.shown else (row.direction or 1) * (1 if change.mean > 0 else -1)
    return Shown(
        number(cell.value), cell.value,
        "" if cell.low is None or cell.high is None else f"{number(cell.low)} to {number(cell.high)}",
        cell.best, cell.below_floor, {1: "better", -1: "worse"}.get(sign, ""), said,
    )  # fmt: skip


def _cost(name: str, value: float | None) -> Shown:
    if value is None:
        return Shown("-", title="not stored by this run")
    if name == "cost/parameters":
        text = next(
            (f"{value / size:.3g} {unit}" for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= size),
            f"{value:.0f}",
        )
        return Shown(text, value)
    return Shown(f"{value:,.0f}" if value >= 100 else f"{value:.3g}", value)
