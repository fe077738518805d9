"""The whole cascade in plain loops, for the tiny bundle: what an answer must be, by looking at every item.

Dense ids; a user of UNKNOWN_ID is one that the bundle does not know.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from tiny_bundle import (
    COVISIT_IN,
    MAX_HISTORY,
    NUM_CANDIDATES,
    POPULAR_P,
    ROWS,
    SEGMENT_VP,
    SIMILARITY_NN,
    item_text,
    probabilities,
)

ITEMS = range(2, ROWS)
COLOUR = {item: ("red", "green", "blue")[item % 3] for item in ITEMS}


@dataclass
class Case:
    """One question, and what of the items holds for it."""

    user: int
    history: list[int]
    k: int
    never: set[int] = field(default_factory=set)  # excluded by the caller, or outside the caller's limits
    unsold: set[int] = field(default_factory=set)
    filter_seen: bool = True

    @property
    def seen(self) -> set[int]:
        return set(self.history) if self.filter_seen else set()


def expected(case: Case) -> list[tuple[str, str]]:
    """(item id, source) of each place."""
    answer = [(item, "retrieval") for item in by_model(case)[: case.k]]
    for left_out in (case.never | case.unsold | case.seen, case.never | case.unsold, case.never):
        for source, items in rungs(case.user, case.history):
            taken = {item for item, _ in answer}
            answer += [(item, source) for item in dict.fromkeys(items) if item not in left_out | taken]
    return [(item_text(item), source) for item, source in answer[: case.k]]


def by_model(case: Case) -> list[int]:
    """The best candidates by similarity to the last item, then by click + like / 2; none without a history."""
    if not case.history:
        return []
    items = [item for item in ITEMS if item not in case.never | case.unsold | case.seen]
    candidates = sorted(items, key=lambda item: -SIMILARITY_NN[case.history[-1], item])[:NUM_CANDIDATES]
    return sorted(candidates, key=lambda item: -value(case, item))


def value(case: Case, item: int) -> float:
    click, like = probabilities(case.user, min(len(case.history), MAX_HISTORY), item)
    return round(click + like / 2, 5)


def rungs(user: int, history: list[int]) -> Iterable[tuple[str, list[int]]]:
    near: dict[int, float] = {}
    for age, item in enumerate(list(dict.fromkeys(reversed(history)))[:20]):
        for other, score in zip(COVISIT_IN[item].tolist(), (0.5, 0.25), strict=True):
            near[other] = near.get(other, 0.0) + float(np.float32(score) * np.float32(0.8**age))
    yield "session", sorted(near, key=lambda item: (-near[item], item))
    if user >= 2:
        yield "segment", SEGMENT_VP[2 + user % 2].tolist()
    yield "popularity", POPULAR_P.tolist()


def outside(allowed: Callable[[int], bool]) -> set[int]:
    return {item for item in ITEMS if not allowed(item)}
