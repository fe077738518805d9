"""The graphs' part of an answer, for any number of questions at once: candidates, probabilities, values.

Shapes: B = questions, W = those with a history, L = history, E = excluded items, K = candidates, R = candidates that the ranker
sees, T = tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from serving.bundle.bundle import Array, Bundle
from serving.cascade.asked import Asked
from serving.cascade.candidates import Candidates, find, order
from serving.cascade.compensate import compensated
from serving.cascade.filters import bias_of
from serving.cascade.probabilities import padded, probabilities

NOT_CORRECTED = np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class Scored:
    """The candidates of one question by descending value; those that fill up a generator's come last. No empty places."""

    item_K: Array
    value_K: Array  # of an item beyond `serving.ranked` that of the worst ranked one
    score_K: Array  # of the graph that found the item
    fill_K: Array  # whether the retrieval graph filled the place
    probability_KT: Array  # NaN where the ranker did not see the item
    said_KT: Array = field(
        default_factory=lambda: NOT_CORRECTED
    )  # the same before the error memory; the very array above where that had no part

    def __post_init__(self) -> None:
        if self.said_KT is NOT_CORRECTED:
            object.__setattr__(self, "said_KT", self.probability_KT)

    @property
    def ranked_K(self) -> Array:
        """Whether the ranker saw the item; true for all where there is no ranker."""
        if not self.probability_KT.shape[1]:
            return np.ones(len(self.item_K), bool)
        return ~np.isnan(self.probability_KT[:, 0])  # a row is all numbers, or none


def score(bundle: Bundle, questions: Sequence[tuple[Asked, int]]) -> list[Scored]:
    """`questions`: each with the number of items wanted of it. Each graph runs once.

    A question without history gets no candidates: what is popular serves it better. Measured on the demo's 1,000 items, HR@10
    of users' first event: popularity .192, popularity in the user's country .214, retrieval on an empty history .193, retrieval
    and ranking .038 (.055 for a user whose id the ranker knows).
    """
    with_past = [question for question in questions if len(question[0].history_L)]
    found_W = iter(_score(bundle, with_past) if with_past else [])
    return [next(found_W) if len(asked.history_L) else nothing(bundle) for asked, _ in questions]


def nothing(bundle: Bundle) -> Scored:
    no_numbers = np.empty(0, np.float32)
    no_probabilities = np.empty((0, len(bundle.facts.tasks)), np.float32)
    return Scored(np.empty(0, np.int64), no_numbers, no_numbers, np.empty(0, dtype=bool), no_probabilities)


def _score(bundle: Bundle, questions: Sequence[tuple[Asked, int]]) -> list[Scored]:
    asked_B = [asked for asked, _ in questions]
    history_BL, length_B = padded([asked.history_L for asked in asked_B])
    exclude_BE, _ = padded([asked.exclude_E for asked in asked_B])
    given = {"history": history_BL, "length": length_B, "exclude": exclude_BE}
    given["bias"] = bias_of([asked.filters for asked in asked_B])
    if bundle.reads_time:
        given["time"], _ = padded([asked.time_M for asked in asked_B], columns=history_BL.shape[1] + 1)
    candidates = find(bundle, given, np.array([k for _, k in questions]))
    said_BKT, probability_BKT, value_BK = _rank(bundle, asked_B, candidates)
    order_BK = order(candidates, value_BK)
    answers = []
    for b, order_K in enumerate(order_BK):
        there_K = order_K[np.isfinite(candidates.score_BK[b, order_K])]
        found = Scored(
            candidates.item_BK[b, there_K],
            value_BK[b, there_K],
            candidates.score_BK[b, there_K],
            candidates.fill_BK[b, there_K],
            probability_BKT[b, there_K],
        )
        answers.append(found if asked_B[b].errors is None else replace(found, said_KT=said_BKT[b, there_K]))
    return answers


def _rank(bundle: Bundle, asked_B: Sequence[Asked], candidates: Candidates) -> tuple[Array, Array, Array]:
    """said_BKT, probability_BKT (the same, corrected by the error memory where there is one) and value_BK: the formula over the
    tasks, or the score where there are none; -inf for empty places.

    Only the first `serving.ranked` candidates of each question go to the ranker; the others follow them in their order.
    """
    if bundle.ranking is None:
        none_BKT = probabilities(bundle, asked_B, candidates.item_BK)
        return none_BKT, none_BKT, candidates.score_BK
    empty_BK, depth = np.isneginf(candidates.score_BK), bundle.facts.serving.ranked
    if depth is None or depth >= candidates.item_BK.shape[1]:
        said_BKT = probabilities(bundle, asked_B, candidates.item_BK)
        probability_BKT = compensated(asked_B, candidates.item_BK, said_BKT)
        return said_BKT, probability_BKT, np.where(empty_BK, -np.inf, bundle.value(probability_BKT))
    place_BR = np.argsort(empty_BK, axis=1, kind="stable")[:, :depth]  # empty places of a generator stand before what fills up
    item_BR = np.take_along_axis(candidates.item_BK, place_BR, axis=1)
    said_BRT = probabilities(bundle, asked_B, item_BR)
    probability_BRT = compensated(asked_B, item_BR, said_BRT)
    value_BR = np.where(np.take_along_axis(empty_BK, place_BR, axis=1), np.inf, bundle.value(probability_BRT))
    probability_BKT = _spread(probability_BRT, place_BR, empty_BK.shape[1])
    said_BKT = probability_BKT if said_BRT is probability_BRT else _spread(said_BRT, place_BR, empty_BK.shape[1])
    value_BK = np.repeat(value_BR.min(axis=1, keepdims=True), empty_BK.shape[1], axis=1)
    np.put_along_axis(value_BK, place_BR, value_BR, axis=1)
    return said_BKT, probability_BKT, np.where(empty_BK, -np.inf, value_BK)


def _spread(probability_BRT: Array, place_BR: Array, width: int) -> Array:
    """probability_BKT of the items that the ranker saw, each in its place; NaN elsewhere."""
    probability_BKT = np.full((len(place_BR), width, probability_BRT.shape[2]), np.nan, np.float32)
    np.put_along_axis(probability_BKT, place_BR[..., None], probability_BRT, axis=1)
    return probability_BKT
