"""A comparison for a rich console: metrics as rows for a few runs, runs as rows for many."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from pipelines.comparison.changes import in_words
from pipelines.comparison.comparison import RUNS_PER_TABLE, Comparison, Difference, Group, Row
from recsys.track import COMMIT, DATA, PROTOCOL

METRICS_PER_TABLE = 8  # of one with runs as rows, at most
MANY_ROWS = 60
CONSENSUS_SHOWN = 10  # runs; --json has all
NAMES, VALUE = 36, 20  # characters of a metric's name, and of a run's column beside it
COLUMN, OTHERS = 12, 64  # characters of a metric's column, and of those that every table has
BESIDE = ("export/latency_p50_ms", "export/bundle_mib", "cost/train_s", "cost/peak_memory_gib", "cost/parameters")
STATUS_STYLE = {"FINISHED": "green", "RUNNING": "yellow", "FAILED": "red", "KILLED": "red", "DELETED": "red"}
LEGEND = (
    "[bold green]★[/] best of its protocol and data   R reference   [green]▲[/] better, [red]▼[/] worse than R, p < .05 after "
    "Holm's correction   [red]✗[/] not above its floor   ± half of the 95 % interval   - not measured"
)  # fmt: skip


def render(comparison: Comparison, width: int = 120) -> Stack:
    """Tables for a console of this width, legend, then what keeps runs apart, what each lacks, and the consensus."""
    fits = NAMES + len(comparison.runs) * VALUE <= width and len(comparison.runs) <= RUNS_PER_TABLE
    parts: list[RenderableType] = [_by_metric(comparison)] if fits else list(_by_run(comparison, width))
    parts += [LEGEND, *_references(comparison), *_changes(comparison)]
    parts += [f"[bold yellow]warning:[/] {escape(warning)}" for warning in comparison.warnings]
    parts += _notes(comparison)
    if comparison.consensus is not None:
        parts.append(_consensus(comparison))
    return Stack(*parts)


def _by_metric(comparison: Comparison) -> Table:
    runs, references = comparison.runs, {group.reference for group in comparison.groups}
    rows = _few_floors(comparison)
    table = Table(title=f"Experiment {escape(comparison.experiment)}", title_justify="left")
    table.add_column("", no_wrap=True)
    for place, run in enumerate(runs):
        mark = " R" if place in references else ""
        table.add_column(f"{escape(run.name)}\n[dim]{run.id[:8]}[/]{mark}", justify="right", overflow="fold")
    table.add_row("status", *(_status(run.status) for run in runs))
    table.add_row("duration", *("-" if run.duration_s is None else f"{run.duration_s:,.0f} s" for run in runs))
    alike = []
    for tag in (PROTOCOL, DATA, COMMIT):
        values = [run.tags.get(tag, "-") for run in runs]
        if len(set(values)) == 1:
            alike.append(f"{tag} {escape(values[0])}")
        else:
            table.add_row(tag, *map(escape, values))
    said = [f"all: {'; '.join(alike)}"] if alike else []
    if left := len(comparison.rows) - len(rows):
        said.append(f"{left} more figures of floors: --json has them, and --metric 'floor/*'")
    table.caption, table.caption_justify = "[dim]" + "\n".join(said) + "[/]" if said else None, "left"
    table.add_section()
    for row in rows:
        shown = (_cell(row, place) for place in range(len(runs)))
        table.add_row(escape(row.metric), *shown, style="dim" if row.metric.startswith("floor/") else None)
    main = comparison.row(comparison.main_metric)
    if main is not None and any(cell.difference for cell in main.cells):
        table.add_section()
        for name, cells in _tests(main):
            table.add_row(escape(name), *cells)
    return table


def _few_floors(comparison: Comparison) -> list[Row]:
    """All rows, or, of many, those of the floors for the main metric alone; all where only floors were asked for."""
    bare, rows = "/" + comparison.main_metric.removeprefix("test/"), list(comparison.rows)
    if len(rows) <= MANY_ROWS or all(row.metric.startswith("floor/") for row in rows):
        return rows
    return [row for row in rows if not row.metric.startswith("floor/") or row.metric.endswith(bare)]


def _tests(row: Row) -> Iterator[tuple[str, list[str]]]:
    """Of the main metric: how far each run is from the reference, and what each test says of it."""
    shown = {
        f"{row.metric} - R": lambda d: f"{d.mean:+.4f}",
        "95 % interval": lambda d: f"{d.low:+.4f} to {d.high:+.4f}",
        "p bootstrap, Holm": lambda d: f"{_p(d.p)}, {_p(d.p_holm)}",
        "p paired t, Wilcoxon": lambda d: f"{_p(d.p_t)}, {_p(d.p_wilcoxon)}",
        "users better, worse, all": lambda d: f"{d.wins:,}, {d.losses:,}, {d.users:,}",
    }
    for name, text in shown.items():
        yield name, ["-" if cell.difference is None else text(cell.difference) for cell in row.cells]


def _by_run(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    """A table for each group, the best by the main metric first. Only the main metric shows its interval and its test."""
    columns = _columns(comparison, max(2, min(METRICS_PER_TABLE, (width - OTHERS) // COLUMN)))
    main = comparison.row(comparison.main_metric)
    for group in comparison.groups:
        parts = (escape(comparison.experiment), f"protocol {escape(group.protocol)}", f"data {escape(group.data)}")
        title = f"Experiment {', '.join(parts)}{_floor(comparison, group)}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("run", overflow="fold", min_width=12)
        table.add_column("id", no_wrap=True)
        for row in columns:
            table.add_column(escape(_short(row.metric)), justify="right", overflow="fold")
        table.add_column("less R", justify="right", no_wrap=True)
        table.add_column("p, Holm", justify="right", no_wrap=True)
        for place in _ordered(group, main):
            run = comparison.runs[place]
            gap = main.cells[place].difference if main is not None else None
            cells = [_cell(row, place, interval=row is main) for row in columns]
            tests = ("-", "-") if gap is None else (f"{gap.mean:+.4f}", _p(gap.p_holm))
            status = "" if run.status == "FINISHED" else f" {_status(run.status)}"
            table.add_row(escape(run.name) + status, run.id[:8] + (" R" if place == group.reference else ""), *cells, *tests)
        yield table
    left = len(comparison.rows) - len(columns)
    if left > 0:
        yield f"[dim]{left} more metrics of these runs: --metric 'test/*@20' chooses the columns, --json and --html have all[/]"


def _columns(comparison: Comparison, most: int) -> list[Row]:
    """The main metric, latency and cost, other test metrics at its K and AUC, as many as fit, then, where the user chose
    metrics, the first of these."""
    main, names = comparison.main_metric, [row.metric for row in comparison.rows if not row.metric.startswith("floor/")]
    k = main.partition("@")[2]
    beside = [name for name in BESIDE if name in names][: most // 3]
    test = [name for name in names if name.startswith("test/") and (name.endswith(f"@{k}") or name.startswith("test/AUC"))]
    test = [name for name in dict.fromkeys([main, *test]) if name in names][: most - len(beside)]
    chosen = list(dict.fromkeys([*test, *beside, *names]))[:most]
    return [row for name in chosen if (row := comparison.row(name)) is not None]


def _short(metric: str) -> str:
    return metric.removeprefix("test/").removeprefix("export/").removeprefix("cost/")


def _ordered(group: Group, main: Row | None) -> list[int]:
    """The group's runs, the best first and those without a value last."""

    def key(place: int) -> tuple[bool, float]:
        value = None if main is None else main.cells[place].value
        known = value is not None and math.isfinite(value)
        return not known, -(main.direction or 1) * value if known and main is not None and value is not None else 0.0

    return sorted(group.places, key=key)


def _floor(comparison: Comparison, group: Group) -> str:
    """The best floor on the main metric, of the first run of the group that has any."""
    bare = comparison.main_metric.removeprefix("test/")
    floors = next((found for place in group.places if (found := comparison.runs[place].floors(bare))), {})
    name = max(floors, key=lambda each: floors[each], default=None)
    return "" if name is None else f", floor {floors[name]:.4f} ({escape(name)})"


def _references(comparison: Comparison) -> Iterator[str]:
    for group in comparison.groups:
        if group.reference is not None and len(group.places) > 1:
            run = comparison.runs[group.reference]
            corrected = f"; corrected for {group.hypotheses} comparisons of each metric" if group.hypotheses > 1 else ""
            yield f"R is {escape(run.name)} {run.id[:8]}, {escape(group.chosen)}{corrected}"


def _changes(comparison: Comparison) -> Iterator[str]:
    """What sets the runs apart; nothing where they are all of the same settings."""
    if any(comparison.changes):
        for run, changed in zip(comparison.runs, comparison.changes, strict=True):
            yield f"[dim]{run.id[:8]}[/] {escape(in_words(changed))}"


def _notes(comparison: Comparison) -> list[RenderableType]:
    """What runs lack, once for all runs of which it is true."""
    said: dict[str, list[str]] = defaultdict(list)
    for run, notes in zip(comparison.runs, comparison.notes, strict=False):
        for note in notes:
            said[note].append(f"{run.name} {run.id[:8]}")
    return [f"[yellow]note:[/] {escape(_some(names))}: {escape(note)}" for note, names in said.items()]


def _some(names: Sequence[str], shown: int = 6) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more runs" if len(names) > shown else "")


def _consensus(comparison: Comparison) -> Table:
    found = comparison.consensus
    assert found is not None
    voters = "users of each, then each" if found.level == "users" else "each"
    table = Table(title=f"Consensus over {escape(', '.join(found.over))} ({voters} has a vote)", title_justify="left")
    for name in ("", "run", "Borda points", "mean", "place by mean"):
        table.add_column(name, justify="left" if name == "run" else "right")
    by_mean = sorted(found.mean, key=lambda name: -found.direction * found.mean[name])
    for place, name in enumerate(found.order[:CONSENSUS_SHOWN], 1):
        mean = (f"{found.mean[name]:.4f}", str(by_mean.index(name) + 1)) if found.mean else ("-", "-")
        table.add_row(str(place), escape(name), f"{found.points[name]:g}", *mean)
    return table


def _status(status: str) -> str:
    return f"[{STATUS_STYLE.get(status, 'yellow')}]{status.lower()}[/]"


def _cell(row: Row, place: int, *, interval: bool = True) -> str:
    cell = row.cells[place]
    if cell.value is None:
        return "-"
    text = _number(row.metric, cell.value)
    if interval and cell.low is not None and cell.high is not None:
        text += f" ±{(cell.high - cell.low) / 2:.4f}".replace("±0.", "±.")
    text = f"[bold green]★ {text}[/]" if cell.best else text
    text = f"[red]✗[/] {text}" if cell.below_floor else text
    return text + _mark(cell.difference)


def _number(metric: str, value: float) -> str:
    if metric.startswith(("cost/", "export/")) and abs(value) >= 1:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def _mark(gap: Difference | None) -> str:
    if gap is None or not gap.shown:
        return ""
    return " [green]▲[/]" if gap.better else " [red]▼[/]"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "<.0001" if p < 1e-4 else f"{p:.4f}".removeprefix("0") if p < 1 else "1"
