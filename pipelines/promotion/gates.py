"""The gates in one list, and those that hold one logged number against a limit. Each is a function of rule and facts."""

from collections.abc import Sequence

from pipelines.promotion.decision import ROLLED_BACK
from pipelines.promotion.facts import Facts
from pipelines.promotion.gate import Gate, at_least, at_most, switched_off
from pipelines.promotion.gates_paired import champion_gate, floor_gate
from pipelines.promotion.gates_slices import slice_gate
from recsys.promotion_config import PromotionConfig

PARITY, LATENCY, SIZE = "export/parity_max_error", "export/latency_p99_ms", "export/bundle_mib"
EXPORT_AGAIN = "was not logged: export the run again"
EVALUATE_AGAIN = "was not logged: evaluate and export the run again"


def judge_facts(rules: PromotionConfig, facts: Facts, metric: str, *, first_k: int, tasks: Sequence[str]) -> tuple[Gate, ...]:
    """Every gate in the order in which they are shown. `tasks` are those whose label is 0 or 1."""
    return (
        bundle_gate(facts),
        standing_gate(facts),
        parity_gate(rules.parity, facts),
        floor_gate(rules.floor, facts, metric),
        champion_gate(rules.champion, facts, metric),
        *(slice_gate(name, rule, facts, rule.metric or metric) for name, rule in rules.slices.items()),
        *([] if rules.slices else [Gate("slices", True, None, None, "off: promotion.slices is empty", off=True)]),
        *calibration_gates(rules.calibration, facts, tasks),
        coverage_gate(rules.coverage, facts, first_k),
        popularity_lift_gate(rules.popularity_lift, facts, first_k),
        latency_gate(rules.latency_p99_ms, facts),
        size_gate(rules.size_mib, facts),
    )


def bundle_gate(facts: Facts) -> Gate:
    """Every file of the bundle is in the store. A server checks their hashes when it loads them."""
    lost = facts.candidate.lost
    note = "all files of the bundle are in the store"
    if lost:
        shown = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        note = f"the store has lost {shown} of {facts.candidate.version.source}: export the run again"
    return Gate("bundle", not lost, float(len(lost)), 0.0, note)


def standing_gate(facts: Facts) -> Gate:
    """The version was not taken back before, unless it is asked for by its number."""
    when, number = facts.candidate.version.tags.get(ROLLED_BACK), facts.candidate.number
    if when is None:
        return Gate("standing", True, None, None, "never rolled back")
    if facts.named:
        return Gate("standing", True, None, None, f"rolled back at {when}; asked for by its number")
    return Gate("standing", False, None, None, f"rolled back at {when}: export another, or insist with --version {number}")


def parity_gate(limit: float | None, facts: Facts) -> Gate:
    """The exported graphs answer as the trained model does."""
    value = facts.candidate.metric(PARITY)
    if limit is None:
        return switched_off("parity", "promotion.parity", value)
    note = f"largest difference between torch and ONNX, {PARITY}"
    return at_most("parity", value, limit, note, f"{PARITY} {EXPORT_AGAIN}")


def calibration_gates(limits: float | dict[str, float] | None, facts: Facts, tasks: Sequence[str]) -> list[Gate]:
    """Probabilities mean what they say, task by task: the value formula adds them up."""
    measured = {task: facts.candidate.metric(f"test/ECE/{task}") for task in tasks}
    if limits is None:
        worst = max((value for value in measured.values() if value is not None), default=None)
        return [switched_off("calibration", "promotion.calibration", worst)]
    by_task = limits if isinstance(limits, dict) else dict.fromkeys(tasks, limits)
    if not by_task:
        return [Gate("calibration", True, None, None, "this model gives no probabilities", off=True)]
    return [
        at_most(
            f"calibration/{task}", measured.get(task), limit,
            f"expected calibration error, test/ECE/{task}", f"test/ECE/{task} {EVALUATE_AGAIN}",
        )
        for task, limit in by_task.items()
    ]  # fmt: skip


def coverage_gate(limit: float | None, facts: Facts, first_k: int) -> Gate:
    """The lists of all users together show enough of the catalogue."""
    name = f"test/coverage@{first_k}"
    value = facts.candidate.metric(name)
    if limit is None:
        return switched_off("coverage", "promotion.coverage", value)
    return at_least("coverage", value, limit, f"share of the catalogue that is shown, {name}", f"{name} {EVALUATE_AGAIN}")


def popularity_lift_gate(limit: float | None, facts: Facts, first_k: int) -> Gate:
    """The lists are not much more popular than what users chose before."""
    name = f"test/popularity_lift@{first_k}"
    value = facts.candidate.metric(name)
    if limit is None:
        return switched_off("popularity_lift", "promotion.popularity_lift", value)
    note = f"popularity of the lists against that of the histories, {name}"
    return at_most("popularity_lift", value, limit, note, f"{name} {EVALUATE_AGAIN}")


def latency_gate(limit: float | None, facts: Facts) -> Gate:
    """One list takes no longer than the budget, 99 times of 100."""
    value = facts.candidate.metric(LATENCY)
    if limit is None:
        return switched_off("latency", "promotion.latency_p99_ms", value)
    return at_most("latency", value, limit, f"ms for one list on one thread, {LATENCY}", f"{LATENCY} {EXPORT_AGAIN}")


def size_gate(limit: float | None, facts: Facts) -> Gate:
    """The bundle fits the budget."""
    value = facts.candidate.metric(SIZE)
    if limit is None:
        return switched_off("size", "promotion.size_mib", value)
    return at_most("size", value, limit, f"MiB of the bundle, {SIZE}", f"{SIZE} {EXPORT_AGAIN}")
