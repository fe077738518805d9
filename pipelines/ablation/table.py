"""The result of an ablation as tables: for the terminal, and as Markdown for a page of results."""

from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from pipelines.ablation.report import SLICES, verdict
from pipelines.ablation.values import ALL

WORDS = {1: "better", -1: "worse", 0: "no difference shown"}
STYLES = {1: "green", -1: "red", 0: "dim"}

Row = list[tuple[str, int]]  # text of a cell and its verdict


def render(found: dict[str, Any]) -> Group:
    """Tables for a rich console."""
    return Group(*(_rich(title, head, rows) for title, head, rows in _tables(found)), *map(escape, _notes(found)))


def markdown(found: dict[str, Any]) -> str:
    """The tables as a page: `better` and `worse` only where that is shown."""
    lines = [f"# {found['title']} of {found['config']}", ""]
    for title, head, rows in _tables(found):
        lines += [f"## {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        lines += [f"| {' | '.join(_marked(cell) for cell in row)} |" for row in rows]
        lines.append("")
    changed = [f"- {name}: `{each['settings']}`" for name, each in found["variants"].items() if each["settings"]]
    notes = [f"- {note}" for note in _notes(found)]
    return "\n".join([*lines, "## What the variants change", "", *changed, "", "## How to read it", "", *notes]) + "\n"


def _tables(found: dict[str, Any]) -> list[tuple[str, list[str], list[Row]]]:
    variants, metrics = found["variants"], found["metrics"]
    seeds = len(found["seeds"])
    users = next(iter(variants.values()))["slices"][ALL][metrics[0]]["users"]
    title = f"{found['stage'].capitalize()}, test split, {users:,} users, mean over {seeds} seed{'s' * (seeds > 1)}"
    tables = []
    for at in range(0, len(metrics), 3):  # as many as a screen is wide
        part = metrics[at : at + 3]
        head = ["variant", *(word for metric in part for word in (metric, "difference to base"))]
        rows = [
            [(name, 0), *(cell for metric in part for cell in _cells(metric, each["slices"][ALL].get(metric), seeds))]
            for name, each in variants.items()
        ]
        tables.append((title, head, rows))
    for metric in [metric for metric in metrics if metric.split("@")[0].split("/")[0] in ("NDCG", "AUC", "RMSE")]:
        known = [name for name in SLICES if any(metric in each["slices"].get(name, {}) for each in variants.values())]
        rows = [
            [(name, 0), *(_short(metric, each["slices"].get(part, {}).get(metric)) for part in known)]
            for name, each in variants.items()
        ]
        counts = next(iter(variants.values()))["slices"]
        head = ["variant", *(f"{part} ({counts.get(part, {}).get(metric, {}).get('users', 0):,} users)" for part in known)]
        tables.append((f"{metric} by slice", head, rows))
    health = list(dict.fromkeys(key for each in variants.values() for key in each["health"]))
    guarded = any("guard" in each for each in variants.values())
    cost = [
        [
            (name, 0),
            *((text, 0) for text in _cost(each)),
            *([(_kept(each), 0)] if guarded else []),
            *((f"{each['health'][key]:.2f}" if key in each["health"] else "-", 0) for key in health),
        ]
        for name, each in variants.items()
    ]
    names = {"rankme": "RankMe", "uniformity_users": "uniformity of users", "uniformity_items": "uniformity of items"}
    head = ["variant", "step time", "to base", "training", "epochs", *(["policy kept"] if guarded else [])]
    head += [names.get(key, key) for key in health]
    return [*tables, ("Cost" + (" and vectors" if health else ""), head, cost)]


def _cells(metric: str, entry: dict[str, Any] | None, seeds: int) -> list[tuple[str, int]]:
    """The mean, and the difference with its interval and how many seeds agree."""
    if entry is None:
        return [("-", 0), ("-", 0)]
    if "difference" not in entry:
        return [(f"{entry['mean']:.4f}", 0), ("", 0)]
    gap = entry["difference"]
    if gap["mean"] == gap["low"] == gap["high"] == 0:
        return [(f"{entry['mean']:.4f}", 0), ("equal", 0)]
    text = f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}], {gap['agree']} of {seeds} seed{'s' * (seeds > 1)}"
    return [(f"{entry['mean']:.4f}", 0), (text, verdict(metric, gap))]


def _short(metric: str, entry: dict[str, Any] | None) -> tuple[str, int]:
    if entry is None:
        return "-", 0
    gap = entry.get("difference")
    return (f"{entry['mean']:.4f}", 0) if gap is None else (f"{entry['mean']:.4f} ({gap['mean']:+.4f})", verdict(metric, gap))


def _cost(each: dict[str, Any]) -> list[str]:
    steps = [value for value in each["step_ms"] if value is not None]
    ratio = each["step_ratio"]
    return [
        f"{sum(steps) / len(steps):.1f} ms" if steps else "-",
        f"{ratio:.2f}" if ratio is not None else "-",
        f"{sum(each['seconds']) / len(each['seconds']):.0f} s",
        f"{sum(each['epochs']) / len(each['epochs']):.1f}",
    ]


def _kept(each: dict[str, Any]) -> str:
    """How often the policy took its parent's place."""
    kept = [guard["kept"] for guard in each["guard"]]
    return f"{kept.count('policy')} of {len(kept)} seed{'s' * (len(kept) > 1)}"


def _rich(title: str, head: list[str], rows: list[Row]) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for place, word in enumerate(head):
        table.add_column(escape(word), justify="right" if place else "left", overflow="fold")
    for row in rows:
        cells = (f"[{STYLES[sign]}]{escape(text)}[/]" if sign else escape(text) for text, sign in row)
        table.add_row(*cells)
    return table


def _marked(cell: tuple[str, int]) -> str:
    text, sign = cell
    return f"**{text} {WORDS[sign]}**" if sign else text.replace("|", "\\|")


def _notes(found: dict[str, Any]) -> list[str]:
    slices = "; ".join(f"{name}: {rule}" for name, rule in found["rules"].items())
    notes = [
        f"seeds {', '.join(map(str, found['seeds']))}; protocol: {found['protocol']}; data {found['data']}",
        "difference: mean over the seeds of variant minus base, with its 95 % interval over users drawn anew, the same for "
        f"both; coloured or bold where that leaves out 0 and {found['fewest_users']} users or more are judged. One interval "
        "in twenty misses by chance, and it says nothing of other seeds: how many seeds have its sign does",
        f"slices: {slices}",
        "step time: median of the training steps, without the wait for data and validation; the ratio's is over the seeds",
    ]
    notes += _beginnings(found)
    return notes + [f"left out: {name}: {reason}" for name, reason in found["refused"].items()]


def _beginnings(found: dict[str, Any]) -> list[str]:
    """What the models go on from reaches, and where that is what was kept."""
    names: dict[str, list[str]] = {}
    for name, each in found["variants"].items():
        if "begins_from" in each:
            values = ", ".join(f"{metric} {each['begins_from'][metric]:.4f}" for metric in found["metrics"])
            names.setdefault(f"the {each['begins_from']['part']}, {values}", []).append(name)
    notes = [f"begun from: {', '.join(of)}: {what}" for what, of in names.items()]
    return notes + [
        f"parent kept: {name}, seed {seed}: {guard['why']}; its values are the parent's"
        for name, each in found["variants"].items()
        if "guard" in each
        for seed, guard in zip(found["seeds"], each["guard"], strict=True)
        if guard["kept"] == "parent"
    ]
