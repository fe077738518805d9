"""Promotion: the candidate becomes the champion only if every gate passes, and the numbers stay on the version as tags."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from recsys.errors import InputError
from recsys.track import DATA, PROTOCOL, RunSummary, Version, get_alias, get_run, set_alias, tag_version

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
PARITY = "export/parity_max_error"
MAX_PARITY_ERROR = 1e-4
MAIN_METRIC = "NDCG@10"


@dataclass(frozen=True)
class Gate:
    name: str
    passed: bool
    value: float | None  # the candidate's; None where it was not measured
    limit: float | None  # what it is held against; None where there is nothing to hold it against
    note: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'fail'}: value {_number(self.value)}, limit {_number(self.limit)}; {self.note}"


@dataclass(frozen=True)
class Decision:
    model: str
    candidate: int
    champion: int | None  # before the decision
    gates: tuple[Gate, ...]
    promoted: bool  # whether the alias moved: not in a dry run, nor where the candidate is the champion already

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def promote(model: str, *, metric: str = MAIN_METRIC, dry_run: bool = False, uri: str | None = None) -> Decision:
    """Judge the candidate version and, if every gate passes, make it the champion; the old champion becomes `previous`.

    Every gate's numbers are written as tags on the candidate. A dry run judges and writes nothing. Raises InputError when
    the model has no candidate or the candidate's run is gone.
    """
    candidate = get_alias(model, CANDIDATE, uri=uri)
    if candidate is None:
        raise InputError(f"The model {model!r} has no version with the alias {CANDIDATE!r}: export a run to register one")
    champion = get_alias(model, CHAMPION, uri=uri)
    run = get_run(candidate.run_id, uri=uri)
    gates = (parity_gate(run), floor_gate(run, metric), champion_gate(run, candidate, champion, metric, uri))
    already = champion is not None and champion.number == candidate.number
    passed = all(gate.passed for gate in gates)
    decision = Decision(
        model, candidate.number, champion.number if champion else None, gates, passed and not already and not dry_run
    )
    if not dry_run:
        tag_version(model, candidate.number, _tags(decision), uri=uri)
    if decision.promoted:
        if champion:
            set_alias(model, PREVIOUS, champion.number, uri=uri)
        set_alias(model, CHAMPION, candidate.number, uri=uri)
    return decision


def parity_gate(run: RunSummary) -> Gate:
    """The exported graphs answer as the trained model does."""
    value = run.metrics.get(PARITY)
    if value is None:
        return Gate("parity", False, None, MAX_PARITY_ERROR, f"{PARITY} was not logged: export the run again")
    passed = value <= MAX_PARITY_ERROR
    return Gate("parity", passed, value, MAX_PARITY_ERROR, f"largest difference between torch and ONNX, {PARITY}")


def floor_gate(run: RunSummary, metric: str) -> Gate:
    """The model beats the best of the models that need no training."""
    value, floors = run.metrics.get(f"test/{metric}"), run.floors(metric)
    if value is None:
        return Gate("floor", False, None, max(floors.values(), default=None), f"test/{metric} was not logged: evaluate the run")
    if not floors:
        return Gate("floor", False, value, None, f"no floor/<name>/{metric} was logged: evaluate the run with its floors")
    best = max(floors, key=lambda name: floors[name])
    return Gate("floor", value > floors[best], value, floors[best], f"test/{metric} above the best floor, {best}")


def champion_gate(run: RunSummary, candidate: Version, champion: Version | None, metric: str, uri: str | None) -> Gate:
    """The model is not below the champion; where the two were not measured alike, the gate passes and says so."""
    name = f"test/{metric}"
    value = run.metrics.get(name)
    if champion is None:
        return Gate("champion", True, value, None, "there is no champion yet")
    if champion.number == candidate.number:
        return Gate("champion", True, value, value, "the candidate is the champion already")
    other = _run_or_none(champion, uri)
    limit = other.metrics.get(name) if other else None
    if other is None or limit is None:
        return Gate("champion", True, value, None, f"not comparable: version {champion.number} has no {name}")
    for tag in (PROTOCOL, DATA):
        mine, theirs = run.tags.get(tag, "not stated"), other.tags.get(tag, "not stated")
        if mine != theirs:
            return Gate("champion", True, value, limit, f"not comparable: {tag} {mine}, version {champion.number} has {theirs}")
    if value is None:
        return Gate("champion", False, None, limit, f"{name} was not logged: evaluate the run")
    return Gate("champion", value >= limit, value, limit, f"{name} not below the champion, version {champion.number}")


def render(decision: Decision) -> Group:
    """The decision for a rich console: a row a gate, then the verdict."""
    table = Table(title=f"{escape(decision.model)} version {decision.candidate}", title_justify="left")
    for column in ("gate", "verdict", "value", "limit", "note"):
        table.add_column(column, justify="right" if column in ("value", "limit") else "left")
    for gate in decision.gates:
        verdict = "[green]pass[/]" if gate.passed else "[bold red]fail[/]"
        table.add_row(gate.name, verdict, _number(gate.value), _number(gate.limit), escape(gate.note))
    return Group(table, f"[bold]{_verdict(decision)}[/]")


def _verdict(decision: Decision) -> str:
    if not decision.passed:
        return f"Not promoted: {', '.join(gate.name for gate in decision.gates if not gate.passed)} failed."
    if decision.promoted:
        before = f"; version {decision.champion} is kept as {PREVIOUS}" if decision.champion else ""
        return f"Promoted: version {decision.candidate} is the champion{before}."
    if decision.candidate == decision.champion:
        return f"Version {decision.candidate} is the champion already."
    return "All gates pass; nothing was changed (dry run)."


def _tags(decision: Decision) -> dict[str, str]:
    return {
        "promotion/decision": "passed" if decision.passed else "refused",
        "promotion/time": datetime.now(UTC).isoformat(timespec="seconds"),
        "promotion/champion_before": str(decision.champion or "none"),
        **{f"promotion/{gate.name}": str(gate) for gate in decision.gates},
    }


def _run_or_none(version: Version, uri: str | None) -> RunSummary | None:
    try:
        return get_run(version.run_id, uri=uri)
    except InputError:
        return None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
