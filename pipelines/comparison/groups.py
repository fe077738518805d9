"""Which runs may stand in one ranking, and how the rules of the others differ."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.comparison.comparison import Group
from pipelines.comparison.values import Kept
from recsys.metrics.direction import direction
from recsys.track import DATA, PROTOCOL, RunSummary

NOT_STATED = "not stated"
FINISHED = "FINISHED"
NAMES_SHOWN = 5


def form_groups(runs: Sequence[RunSummary], main: str, against: str | None) -> tuple[Group, ...]:
    """Runs of the same protocol on the same data, in the runs' order.

    The reference is the run with id `against` where it is in the group, else the best by the main metric: "is the next one
    really worse?" The best was not named beforehand, so that any pair of runs could have been held against each other, and
    Holm's correction counts all pairs; with a run that the user names it counts the others.
    """
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        members[run.tags.get(PROTOCOL, NOT_STATED), run.tags.get(DATA, NOT_STATED)].append(place)
    return tuple(_group(runs, *tags, places, main, against) for tags, places in members.items())


def _group(
    runs: Sequence[RunSummary], protocol: str, data: str, places: Sequence[int], main: str, against: str | None
) -> Group:
    ranked = [place for place in places if is_ranked(runs[place])]
    values = {
        place: direction(main) * value for place in ranked if math.isfinite(value := runs[place].metrics.get(main, math.nan))
    }
    named = next((place for place in ranked if runs[place].id == against), None)
    if named is not None:
        return Group(protocol, data, tuple(places), named, "named with --against", len(ranked) - 1)
    if not values or not direction(main):
        return Group(protocol, data, tuple(places), None)
    best = max(values, key=lambda place: values[place])
    return Group(protocol, data, tuple(places), best, f"the best by {main}", len(ranked) * (len(ranked) - 1) // 2)


def is_ranked(run: RunSummary) -> bool:
    """Whether the run is finished and says by which rules and on which data it was measured."""
    return run.status == FINISHED and PROTOCOL in run.tags and DATA in run.tags


def warnings(runs: Sequence[RunSummary], groups: Sequence[Group], kept: Sequence[Kept]) -> Iterator[str]:
    """Sentences about what keeps runs out of one ranking."""
    for values, meaning in (([g.protocol for g in groups], "protocols"), ([g.data for g in groups], "datasets")):
        if len(distinct := dict.fromkeys(values)) > 1:
            yield (
                f"the runs have different {meaning} ({'; '.join(distinct)}), which no ranking can hold together: "
                "each has its own best"
            )
            if meaning == "protocols":
                yield from _rules(groups, kept)
    if unfinished := [f"{run.name} {run.status}" for run in runs if run.status != FINISHED]:
        yield f"not finished, so shown and not ranked: {_some(unfinished)}"
    if silent := [run.name for run in runs if run.status == FINISHED and not is_ranked(run)]:
        yield f"no protocol or data is stated, so shown and not ranked: {_some(silent)}; run `recsys evaluate` again"


def _rules(groups: Sequence[Group], kept: Sequence[Kept]) -> Iterator[str]:
    """How each protocol's rules differ from the first's, by what the runs have stored of them."""
    rules: dict[str, dict[str, Any] | None] = {}
    for group in groups:
        known = (kept[place].protocol for place in group.places)
        rules[group.protocol] = rules.get(group.protocol) or next((each for each in known if each), None)
    rules.pop(NOT_STATED, None)
    (first, first_rules), *others = rules.items() if rules else (("", None),)
    for name, own in others:
        if own is None or first_rules is None:
            yield f"how {first if first_rules is None else name!r} differs is not known: none of its runs has stored its rules"
        else:
            yield f"{name!r} has, against {first!r}: {'; '.join(_differences(own, first_rules)) or 'the same rules'}"


def _differences(own: dict[str, Any], other: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """As `Protocol.differences`, of stored documents: those of another version may lack rules."""
    for name in dict.fromkeys([*own, *other]):
        here, there = own.get(name), other.get(name)
        if name == "hash" or here == there:
            continue
        if isinstance(here, dict) and isinstance(there, dict):
            yield from _differences(here, there, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} {_shown(here)} instead of {_shown(there)}"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
