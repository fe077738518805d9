"""The gate on a part of the test split: what is better on the mean must not be so at the cost of some users or items."""

from pipelines.promotion.facts import Facts
from pipelines.promotion.gate import Gate
from recsys.promotion_config import STANDARD_SLICES, SliceGate
from recsys.track import DATA, PROTOCOL


def slice_gate(name: str, rule: SliceGate, facts: Facts, metric: str) -> Gate:
    """The slice keeps its least value and does not drop far below the champion.

    The values are means over the slice's users, without an interval: `max_drop` has to leave room for chance, and with few
    users the drop is not judged.
    """
    gate, logged = f"slice/{name}", f"slice/{name}/{metric}"
    if rule.min is None and rule.max_drop is None:
        return Gate(gate, True, facts.candidate.metric(logged), None, f"off: promotion.slices.{name} has no limit", off=True)
    value, users = facts.candidate.metric(logged), (facts.candidate.slice_users or {}).get(name)
    if value is None:
        return _not_measured(gate, name, logged, rule, facts)
    reference, why = _reference(name, logged, rule, facts, users)
    if why is not None:
        return Gate(gate, False, value, rule.min, why)
    limits = [] if rule.min is None else [(rule.min, f"promotion.slices.{name}.min")]
    if reference is not None and rule.max_drop is not None:
        limits.append((reference - rule.max_drop * reference, f"the champion's {reference:.6g} less {rule.max_drop:.0%}"))
    if not limits:
        return Gate(gate, True, value, None, f"{logged}: {_not_held(rule, facts, users)}")
    limit, what = max(limits)
    over = "" if users is None else f" over {users} users"
    return Gate(gate, value >= limit, value, limit, f"{logged}{over}, at least {what}")


def _not_measured(gate: str, name: str, logged: str, rule: SliceGate, facts: Facts) -> Gate:
    others = facts.candidate.slice_users
    if name in STANDARD_SLICES and others and not others.get(name) and rule.min is None:
        return Gate(gate, True, None, None, f"no user of the test split is in the slice {name}")
    return Gate(gate, False, None, rule.min, f"{logged} was not logged: evaluate and export the run again")


def _reference(name: str, logged: str, rule: SliceGate, facts: Facts, users: int | None) -> tuple[float | None, str | None]:
    """The champion's value where the two can be compared; the reason to refuse where it should be there and is not."""
    champion = facts.champion
    if rule.max_drop is None or _not_held(rule, facts, users):
        return None, None
    assert champion is not None
    if (value := champion.metric(logged)) is None:
        mend = f"evaluate and export its run again, or set promotion.slices.{name}.max_drop=null once"
        return None, f"the champion, version {champion.number}, has no {logged}: {mend}"
    return value, None


def _not_held(rule: SliceGate, facts: Facts, users: int | None) -> str:
    """Why the candidate is not held against the champion; empty where it is."""
    champion = facts.champion
    if champion is None:
        return "there is no champion yet"
    if facts.same:
        return "the candidate is the champion already"
    if champion.run is None:
        return "the champion's run was deleted"
    for tag in (PROTOCOL, DATA):
        if how := facts.differs(tag):
            return f"not comparable with the champion: {how}"
    if users is not None and users < rule.min_users:
        return f"{users} users, of which a drop says nothing (promotion.slices, min_users {rule.min_users})"
    return ""
