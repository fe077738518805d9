"""What is known of datasets, for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pipelines.prepare import Prepared

MAX_SHOWN = 5  # of a list whose rest the report's page has
NUM_PAIRS = 2


def show_prepared(console: Console, folder: Path, prepared: "Prepared") -> None:
    """The dataset that `prepare` made: where its rows went, its labels, what moved, and leaks."""
    report, manifest = prepared.manifest["report"], prepared.manifest
    splits = ", ".join(f"{name} {count:,}" for name, count in report["timeline_by_split"].items())
    _say(
        console,
        f"[bold]dataset[/] in {escape(str(folder))}: {report['timeline_events']:,} timeline events of {report['users']:,} "
        f"users and {report['items']:,} items; {splits}",
    )
    _say(console, f"  {escape(report['built'] if prepared.is_new else 'nothing new since ' + manifest['created'])}")
    events = manifest["config"]["events"]
    _show_rows(console, report, events["conflicts"])
    if events["time_unit"] == "auto":
        _say(console, f"  time_unit is {report['time_unit']}, as the first rows show")
    _show_tables(console, report)
    _show_quarantine(console, report["quarantined_by_reason"])
    for name, facts in report["tasks"].items():
        mean = "-" if facts["mean"] is None else f"{facts['mean']:.3f}"
        word = "target" if name in manifest["targets"] else "task"
        _say(console, f"  {word} {escape(name)}: {facts['labelled']:,} labels, mean {mean}")
    show_drift(console, prepared.report["drift"])
    show_leaks(console, prepared.report["leaks"], folder)


def _show_rows(console: Console, report: Mapping[str, Any], conflicts: str) -> None:
    _say(
        console,
        f"  {report['rows_read']:,} rows read, {report['rows_quarantined']:,} quarantined, "
        f"{report['rows_dropped_by_steps']:,} dropped by steps, {report['rows_dropped_by_min_counts']:,} by minimum counts; "
        f"{_repeats(report)}",
    )
    if report["late_rows"]:
        _say(console, f"  [yellow]late rows[/] {report['late_rows']:,}, which count from when they arrived")
    if report["conflicting_rows"]:
        what = f"same user, item and time, other values (events.conflicts: {conflicts})"
        _say(console, f"  [yellow]conflicting rows[/] {report['conflicting_rows']:,}: {what}")


def _show_tables(console: Console, report: Mapping[str, Any]) -> None:
    for table in ("user_table", "item_table"):
        facts = report.get(table) or {}
        if facts.get("rows_quarantined") or facts.get("ids_of_events_without_row"):
            _say(
                console,
                f"  {table.replace('_', ' ')}: {facts['rows_quarantined']:,} rows quarantined, "
                f"{facts['ids_of_events_without_row']:,} ids of the log without a row (their features are unknown)",
            )


def _show_quarantine(console: Console, by_reason: Mapping[str, int]) -> None:
    for reason, count in list(by_reason.items())[:MAX_SHOWN]:
        _say(console, f"  [yellow]quarantined[/] {count:,}: {escape(reason)}")
    if len(by_reason) > MAX_SHOWN:
        _say(console, f"  [yellow]quarantined[/] {sum(list(by_reason.values())[MAX_SHOWN:]):,} for other reasons")


def show_drift(console: Console, drift: Sequence[Mapping[str, Any]] | None) -> None:
    """What moved since the dataset before, the most first; nothing where there was none."""
    if drift is None:
        return
    moved = [row for row in drift if row["verdict"] != "stable"]
    named = [f"{escape(row['name'])} {row['verdict']}, {_short(row['before'])} to {_short(row['after'])}" for row in moved]
    more = f"; and {len(moved) - MAX_SHOWN} more" if len(moved) > MAX_SHOWN else ""
    _say(console, f"  since the dataset before: {'; '.join(named[:MAX_SHOWN]) or 'nothing moved'}{more}")


def show_leaks(console: Console, leaks: dict[str, Any], dataset: Path) -> None:
    """The test split's leaks and those by time, in a few words; `recsys data leaks` has all."""
    from recsys.data.leaks import sentences

    shown = sentences(_main(leaks))
    for sentence in shown:
        _say(console, f"  [yellow]leak[/] {escape(sentence)}")
    if more := len(sentences(leaks)) - len(shown):
        _say(console, f"  [yellow]leak[/] {more} more of this kind: recsys data leaks {escape(str(dataset))}")


def _main(leaks: dict[str, Any]) -> dict[str, Any]:
    """Without the validation split and without what each label says, and with few examples."""
    test = leaks["held_out"]["test"]
    seen = {where: test["seen"][where] for where in ("timeline", "example")}
    seen = {where: {**facts, "examples": facts["examples"][:NUM_PAIRS]} for where, facts in seen.items()}
    return {**leaks, "held_out": {"test": {**test, "seen": seen}}}


def show_quality(console: Console, report: Mapping[str, Any], dataset: Path) -> None:
    """A report of `pipelines.data_report` in a few tables; its page has more."""
    rows = report["rows"]
    _say(
        console,
        f"{report['events']:,} timeline events of {report['users']:,} users and {report['items']:,} items; {rows['read']:,} "
        f"rows read, {rows['quarantined']:,} quarantined; {_repeats(report)}",
    )
    _show_quarantine(console, rows["quarantined_by_rule"])
    shares = list(report["events_per_user"]["quantiles"])
    cells = []
    for owner in ("user", "item"):
        facts = report[f"events_per_{owner}"]
        numbers = [facts["min"], *(facts["quantiles"].get(share) for share in shares), facts["max"], facts["mean"]]
        cells.append([owner, *map(_short, numbers)])
    _show_table(console, "Events", ["per", "min", *(f"{float(share):.0%}" for share in shares), "max", "mean"], cells)
    cells = [
        [name, *(f"{facts[key]:,}" for key in ("events", "users", "items", "cold_users", "cold_items"))]
        for name, facts in report["splits"].items()
    ]
    _show_table(console, "Splits", ["split", "events", "users", "items", "cold users", "cold items"], cells)
    cells = [
        [
            task,
            *(
                f"{facts['labelled']:,} / {'-' if facts['mean'] is None else format(facts['mean'], '.4f')}"
                for facts in splits.values()
            ),
        ]
        for task, splits in report["tasks"].items()
    ]
    _show_table(console, "Labels: number / mean", ["label", *report["splits"]], cells)
    cells = [[f["feature"], f["owner"], f"{f['rows']:,}", f"{f['unknown_share']:.1%}"] for f in report["features"]]
    _show_table(console, "Features", ["feature", "of", "rows", "unknown"], cells, num_text=2)
    show_leaks(console, report["leaks"], dataset)


def _show_table(console: Console, title: str, head: Sequence[str], cells: Sequence[Sequence[str]], num_text: int = 1) -> None:
    """The first `num_text` columns hold text, the others numbers."""
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(head):
        table.add_column(name, justify="left" if place < num_text else "right")
    for row in cells:
        table.add_row(*map(escape, row))
    if cells:
        console.print(table)


def _repeats(report: Mapping[str, Any]) -> str:
    tied, repeated = report["share_with_tied_time"], report["share_of_repeated_pairs"]
    return f"{tied:.1%} of events share their user's time with another, {repeated:.1%} repeat an item"


def _short(value: float | None) -> str:
    return (
        "-"
        if value is None
        else f"{value:,.0f}"
        if value == int(value)
        else f"{value:,.3g}"
        if value < 100
        else f"{value:,.1f}"
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False)
