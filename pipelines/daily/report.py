"""What a day came to, for people (report.md) and programs (report.json)."""

import json
from typing import Any

from pipelines.daily.layout import REPORT_FILE, REPORT_JSON
from pipelines.daily.notify import notify
from pipelines.daily.state import STEPS, replace_text
from pipelines.daily.today import Today


def write_report(today: Today) -> dict[str, Any]:
    """Write both files and tell who is to be told; returns where they lie and what was sent."""
    folder, text, found = today.layout.folder(today.day), markdown(today), to_json(today)
    replace_text(folder / REPORT_FILE, text)
    replace_text(folder / REPORT_JSON, json.dumps(found, indent=1) + "\n")
    return {"file": str(folder / REPORT_FILE), **notify(today.config.daily, headline(today), text, found)}


def to_json(today: Today) -> dict[str, Any]:
    """The day's state with its headline, and without the counts that only the next days' checks read."""
    found = {"headline": headline(today), **today.state.to_json()}
    if "arrive" in found["steps"]:
        found["steps"]["arrive"]["detail"] = {
            name: value for name, value in found["steps"]["arrive"]["detail"].items() if isinstance(value, (int, str))
        }
    return found


def headline(today: Today) -> str:
    """One line: what a reader who reads no further has to know."""
    state = today.state
    if state.status in ("stopped", "failed"):
        return f"{today.config.name} {state.day} {state.status}: {state.error}"
    alarms = f" {len(state.alarms)} alarm{'s' * (len(state.alarms) != 1)}." if state.alarms else ""
    return f"{today.config.name} {state.day}: {(state.decision or {}).get('says', 'not judged.')}{alarms}"


def markdown(today: Today) -> str:
    state = today.state
    lines = [f"# {headline(today)}", ""]
    if state.mode is not None:
        lines += [f"Training: **{state.mode}**, {state.why}.", ""]
    lines += _metrics(today)
    if state.alarms:
        lines += ["## Alarms", "", *(f"- {alarm['sentence']}" for alarm in state.alarms), ""]
    if state.decision is not None and state.decision.get("gates"):
        lines += ["## Gates", "", "| gate | verdict | note |", "|---|---|---|"]
        for gate in state.decision["gates"]:
            if not gate["off"]:
                lines.append(f"| {gate['name']} | {'pass' if gate['passed'] else 'fail'} | {gate['note'].replace('|', '/')} |")
        lines.append("")
    lines += ["## Steps", "", "| step | state | seconds |", "|---|---|---:|"]
    for name in STEPS:
        if name in state.steps:
            lines.append(f"| {name} | {state.steps[name].state} | {state.steps[name].seconds:.1f} |")
    return "\n".join([*lines, ""])


def _metrics(today: Today) -> list[str]:
    """Candidate, champion and best floor on the day's test users."""
    found = today.state.detail("evaluate")
    if not found:
        return []
    k = today.config.evaluation.ks[0]
    names = [name for name in (f"HR@{k}", f"NDCG@{k}", f"MRR@{k}") if name in found["metrics"]]
    champion = found["champion"].get("metrics", {})
    rows = [
        f"| {name} | {found['metrics'][name]:.4f} | {_number(champion.get(name))} | "
        f"{_number(max((means[name] for means in found['floors'].values()), default=None))} |"
        for name in names
    ]
    why = (
        [f"The champion was not judged on this data: {found['champion']['why_not']}.", ""]
        if "why_not" in found["champion"]
        else []
    )
    return [
        f"## Metrics of {found['users']:,} users", "", "| metric | candidate | champion | best floor |", "|---|---:|---:|---:|",
        *rows, "", *why,
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
