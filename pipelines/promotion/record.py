"""A decision in words: for the terminal, and for the model version, as tags, JSON and a table in its description."""

import json
import math
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from pipelines.promotion.decision import CHAMPION_BEFORE, DECISION, ROLLED_BACK, ROLLED_BACK_FROM, Decision
from pipelines.promotion.facts import PREVIOUS
from pipelines.promotion.gate import number
from recsys import track

PREFIX, HEADING = "promotion/", "## Promotion"
KEPT = (ROLLED_BACK, ROLLED_BACK_FROM)  # of an earlier rollback


def render(decision: Decision) -> Group:
    """The decision for a rich console: a row a gate, one line for those that are off, then the verdict."""
    table = Table(title=f"{escape(decision.model)} version {decision.candidate}", title_justify="left")
    for column in ("gate", "verdict", "value", "limit", "note"):
        table.add_column(column, justify="right" if column in ("value", "limit") else "left")
    for gate in (each for each in decision.gates if not each.off):
        verdict = "[green]pass[/]" if gate.passed else "[bold red]fail[/]"
        table.add_row(gate.name, verdict, number(gate.value), number(gate.limit), escape(gate.note))
    off = ", ".join(f"{gate.name} {number(gate.value)}" for gate in decision.gates if gate.off)
    return Group(table, *([f"[dim]off: {escape(off)}[/]"] if off else []), f"[bold]{escape(sentence(decision))}[/]")


def sentence(decision: Decision) -> str:
    if not decision.passed:
        return f"Not promoted: {', '.join(gate.name for gate in decision.gates if not gate.passed)} failed."
    match decision.outcome:
        case "passed":
            return "All gates pass; it is about to become the champion."
        case "promoted":
            before = f"; version {decision.champion} is kept as {PREVIOUS}" if decision.champion else ""
            return f"Promoted: version {decision.candidate} is the champion{before}."
        case "lost":
            return f"Not promoted: {decision.note}."
        case _ if decision.candidate == decision.champion or decision.outcome == "already":
            return f"Version {decision.candidate} is the champion already; nothing was changed."
        case _:
            return "All gates pass; nothing was changed (dry run)."


def to_json(decision: Decision) -> dict[str, Any]:
    """As strict JSON: a value that is not a number is null."""
    return {**decision.to_json(), "gates": [_strict(gate) for gate in decision.to_json()["gates"]], "says": sentence(decision)}


def record(decision: Decision, *, uri: str | None) -> None:
    """Write the decision on its version, in place of an earlier one."""
    tags: dict[str, str | None] = {
        DECISION: decision.outcome,
        "promotion/time": datetime.now(UTC).isoformat(timespec="seconds"),
        CHAMPION_BEFORE: str(decision.champion or "none"),
        "promotion/json": json.dumps(to_json(decision), allow_nan=False),
        **{f"{PREFIX}{gate.name}": str(gate) for gate in decision.gates},
    }
    earlier = track.get_version(decision.model, decision.candidate, uri=uri).tags
    changed = {key: value for key, value in tags.items() if earlier.get(key) != value}
    stale = dict.fromkeys(key for key in earlier if key.startswith(PREFIX) and key not in (*tags, *KEPT))
    track.tag_version(decision.model, decision.candidate, {**stale, **changed}, uri=uri)
    track.describe_version(decision.model, decision.candidate, markdown(decision), uri=uri)


def markdown(decision: Decision) -> str:
    """The decision as a section of Markdown. Gates that are off are named in one line, since a description has little room."""
    beside = f"beside version {decision.champion}" if decision.champion else "without a champion beside it"
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    rows = [
        f"| {gate.name} | {gate.verdict} | {number(gate.value)} | {number(gate.limit)} | {gate.note.replace('|', '/')} |"
        for gate in sorted(decision.gates, key=lambda gate: gate.passed)
        if not gate.off
    ]
    off = ", ".join(gate.name for gate in decision.gates if gate.off)
    return "\n".join(
        [
            HEADING, "", f"{sentence(decision)} Judged {when}, {beside}.", "",
            "| gate | verdict | value | limit | note |", "|---|---|---:|---:|---|", *rows,
            *(["", f"Off: {off}."] if off else []), "",
        ]
    )  # fmt: skip


def _strict(gate: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in gate.items()}
