"""The data-quality report as one HTML page for people: it loads nothing, runs no script, and is light or dark as asked."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipelines.charts import bars, line
from pipelines.pages import base_style
from recsys.data.rules import REASONS

MAX_DAYS = 400  # a longer series is drawn by week
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Table(NamedTuple):
    title: str
    head: list[str]
    rows: list[list[str]]
    num_text: int = 1  # that many columns hold text, the others numbers
    note: str = ""
    marks: Sequence[str] = ()  # a CSS class for each row


def quality_page(report: Mapping[str, Any], drift: Sequence[Mapping[str, Any]] | None = None, leaks: Sequence[str] = ()) -> str:
    """The page of a report of `recsys.data.quality`, of what moved since an earlier one (`recsys.data.drift`), and of leaks."""
    charts = {
        f"{owner}s by their number of events, each bar from this number to the next": _histogram(report, owner)
        for owner in ("user", "item")
    }
    span, over_time = _time(report["time"])
    tables = [_left_out(report), _activity(report), _splits(report), _labels(report), _features(report), _top_items(report)]
    if drift is not None:
        tables.insert(0, _drift(drift))
    tables.insert(0, Table("Leaks", ["what a model may see that it should not"], [[sentence] for sentence in leaks]))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        style=base_style(),
        span=span,
        numbers=_headline(report),
        charts=charts | over_time,
        tables=[table for table in tables if table.rows],
    )


def _headline(report: Mapping[str, Any]) -> dict[str, str]:
    rows = report["rows"]
    return {
        **{name: f"{report[name]:,}" for name in ("events", "users", "items")},
        "rows read": f"{rows['read']:,}",
        "rows quarantined": f"{rows['quarantined']:,}",
        "of events repeat a user and item": _share(report["share_of_repeated_pairs"]),
        "of events share their user's time": _share(report["share_with_tied_time"]),
    }


def _left_out(report: Mapping[str, Any]) -> Table:
    rows = report["rows"]
    told = REASONS | {"unreadable": "could not be read; the quarantine files say why"}
    quarantined = sorted(rows["quarantined_by_rule"].items(), key=lambda pair: -pair[1])
    lost = [(rule, told.get(rule, "").format(column="a value"), count) for rule, count in quarantined]
    lost += [(name.replace("_", " "), "dropped by a filter", facts["rows"]) for name, facts in rows["dropped"].items()]
    cells = [[rule, reason, f"{count:,}", _share(count / max(1, rows["read"]))] for rule, reason, count in lost]
    return Table("Rows left out", ["rule or filter", "why", "rows", "share of rows read"], cells, num_text=2)


def _activity(report: Mapping[str, Any]) -> Table:
    shares = list(report["events_per_user"]["quantiles"])
    cells = [
        [owner, f"{facts['min']:,}", *(_number(facts["quantiles"].get(share)) for share in shares), f"{facts['max']:,}",
         _number(facts["mean"]), f"{report[f'{owner}s_without_events']:,}"]
        for owner in ("user", "item")
        for facts in [report[f"events_per_{owner}"]]
    ]  # fmt: skip
    names = [f"{float(share):.0%}" for share in shares]
    return Table("Events per user and item", ["per", "min", *names, "max", "mean", "without any"], cells)


def _splits(report: Mapping[str, Any]) -> Table:
    cells = [
        [name, *(f"{s[key]:,}" for key in ("events", "users", "items", "cold_users")), _share(s["share_of_cold_users"]),
         f"{s['cold_items']:,}", _share(s["share_of_cold_items"])]
        for name, s in report["splits"].items()
    ]  # fmt: skip
    head = ["split", "events", "users", "items", "cold users", "share of events", "cold items", "share of events"]
    return Table("Splits", head, cells, note="Cold: without an event in the training split.")


def _labels(report: Mapping[str, Any]) -> Table:
    cells = [
        [task, split, f"{facts['labelled']:,}", _number(facts["mean"])]
        for task, splits in report["tasks"].items()
        for split, facts in splits.items()
    ]
    return Table("Labels", ["task", "split", "labels", "mean"], cells, num_text=2)


def _features(report: Mapping[str, Any]) -> Table:
    cells = [[f["feature"], f["owner"], f"{f['rows']:,}", _share(f["unknown_share"])] for f in report["features"]]
    return Table("Features", ["feature", "of", "rows", "unknown"], cells, num_text=2)


def _top_items(report: Mapping[str, Any]) -> Table:
    cells = [
        [item["item_id"], item["title"] or "", f"{item['events']:,}", _share(item["events"] / report["events"])]
        for item in report["top_items"]
    ]
    return Table("Top items", ["item", "title", "events", "share of events"], cells, num_text=2)


def _drift(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        [row["name"], row["verdict"], row["measure"], *(_number(row[key]) for key in ("value", "before", "after"))]
        for row in rows
    ]
    note = "Stable: below 0.1. Moved: up to 0.25. Shifted: above. PSI: population stability index."
    head = ["quantity", "verdict", "measure", "change", "before", "after"]
    return Table("Changes since the dataset before", head, cells, 3, note, [row["verdict"] for row in rows])


def _histogram(report: Mapping[str, Any], owner: str) -> Markup:
    counts = report[f"events_per_{owner}"]["histogram"]
    return bars(counts, [f"{2**k}" if k < 10 else f"{2 ** (k - 10)}k" for k in range(len(counts))])


def _time(time: Mapping[str, Any] | None) -> tuple[str, dict[str, Markup]]:
    """The time span in words and the charts over time; nothing where the log has no moments."""
    if time is None:
        return "", {}
    days, first = time["events_per_day"], date.fromisoformat(time["first_day"])
    by_week = len(days) > MAX_DAYS
    series = [sum(days[start : start + 7]) for start in range(0, len(days), 7)] if by_week else days
    last = first + timedelta(days=len(days) - 1)
    span = [datetime.fromtimestamp(time[key] / 1000, UTC).strftime("%Y-%m-%d %H:%M") for key in ("first_ms", "last_ms")]
    return f"{span[0]} to {span[1]} UTC", {
        f"events per {'week' if by_week else 'day'}": line(series, first.isoformat(), last.isoformat()),
        "events per hour of the day (UTC)": bars(time["events_per_hour_of_day"], [str(hour) for hour in range(24)]),
        "events per weekday": bars(time["events_per_weekday"], WEEKDAYS),
    }


def _share(share: float) -> str:
    return f"{share:.1%}" if share == 0 or share >= 0.001 else f"{share:.2%}" if share >= 0.0001 else "<0.01%"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.1f}"


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Data quality</title>
<style>
{{ style }}
.moved, .shifted, .added, .removed { color: var(--warn) }
svg { width: 100%; height: auto; display: block }
rect { fill: var(--mark) }
polygon { fill: var(--mark); opacity: .2 }
polyline { fill: none; stroke: var(--mark); stroke-width: 1.5 }
path { stroke: var(--line) }
text { fill: var(--soft); font-size: 13px }
</style>
</head>
<body>
<h1>Data quality</h1>
<p>{{ span }}</p>
<div class="numbers">
{% for name, value in numbers.items() %}
<div><b>{{ value }}</b><span>{{ name }}</span></div>
{% endfor %}
</div>
<div class="charts">
{% for name, chart in charts.items() %}
<div><h3>{{ name }}</h3>{{ chart }}</div>
{% endfor %}
</div>
{% for table in tables %}
<h2>{{ table.title }}</h2>
<div class="table"><table>
<tr>
{% for cell in table.head %}
<th{% if loop.index <= table.num_text %} class="text"{% endif %}>{{ cell }}</th>
{% endfor %}
</tr>
{% for row in table.rows %}
<tr{% if table.marks %} class="{{ table.marks[loop.index0] }}"{% endif %}>
{% for cell in row %}
<td{% if loop.index <= table.num_text %} class="text"{% endif %}>{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</table></div>
{% if table.note %}<p>{{ table.note }}</p>{% endif %}

{% endfor %}
</body>
</html>
"""
