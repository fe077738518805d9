"""The ladder: what stands in where the model finds too few items, down to exactly k distinct ones.

Rungs, best first: what others had together with the user's newest items; what is popular with users like this one; what is
popular. Where all of them leave places open, what was filtered comes back: seen items first, then those that are sold out,
expired or not yet sold. What the caller excludes or limits (`exclude`, `allow`, `categories`, `region`) holds always.

Shapes: I = rows of the item table, N = items of one rung.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recsys.columns import TRAIN_COUNT
from serving.answers import Rung
from serving.bundle.bundle import Array, Bundle
from serving.cascade.asked import Asked
from serving.cascade.filters import AS_ASKED, SEEN_TOO, UNSOLD_TOO, Level

NEWEST = 20  # items of the history whose co-visits count
DECAY = 0.8  # how much less each older one counts


@dataclass(frozen=True)
class StandIn:
    item: int
    score: float  # session: the sum of co-visit scores; else 1 / place among the popular
    rung: Rung
    because: int | None  # session: the item of the history that speaks most for it
    level: Level  # what was given way to


def stand_ins(bundle: Bundle, asked: Asked, taken_N: Array, count: int) -> list[StandIn]:
    """The next `count` items after those taken; fewer only where the caller's own limits leave fewer."""
    found: list[StandIn] = []
    chosen = set(taken_N.tolist())
    for level in (AS_ASKED, SEEN_TOO, UNSOLD_TOO):
        for rung, item_N, score_N, because_N in _rungs(bundle, asked, level):
            if len(found) >= count:
                return found
            there_N = np.flatnonzero(asked.filters.permits(item_N, level))
            for item, place in zip(item_N[there_N].tolist(), there_N.tolist(), strict=True):
                if item in chosen:
                    continue
                because = None if because_N is None else int(because_N[place])
                found.append(StandIn(item, float(score_N[place]), rung, because, level))
                chosen.add(item)
                if len(found) >= count:
                    return found
    return found


def _rungs(bundle: Bundle, asked: Asked, level: Level) -> Iterator[tuple[Rung, Array, Array, Array | None]]:
    """(rung, items, their scores, and the item of the history that each is due to), best first. Made only when needed."""
    if len(asked.past.item_L):
        yield "session", *_session(bundle, asked.past.item_L)
    segment_N = bundle.popular_with(asked.user)
    yield "segment", segment_N, 1 / np.arange(1, len(segment_N) + 1), None
    popular_N = bundle.popular_P
    yield "popularity", popular_N, 1 / np.arange(1, len(popular_N) + 1), None
    left_N = asked.filters.all(level)
    if TRAIN_COUNT in bundle.items.column_names:
        left_N = left_N[np.argsort(-bundle.items[TRAIN_COUNT].to_numpy()[left_N], kind="stable")]
    yield "popularity", left_N, np.zeros(len(left_N)), None


def _session(bundle: Bundle, item_L: Array) -> tuple[Array, Array, Array]:
    """What others had together with the newest distinct items: the sum of co-visit scores, an older item counting for less."""
    newest = list(dict.fromkeys(item_L[::-1][: 10 * NEWEST].tolist()))[:NEWEST]
    near = [bundle.covisits(item) for item in newest]
    item_E = np.concatenate([item_N for item_N, _ in near])
    score_E = np.concatenate([score_N * DECAY**age for age, (_, score_N) in enumerate(near)])
    because_E = np.repeat(newest, [len(item_N) for item_N, _ in near])
    item_N, row_E = np.unique(item_E, return_inverse=True)
    score_N = np.bincount(row_E, weights=score_E, minlength=len(item_N))
    because_N = np.zeros(len(item_N), np.int64)
    rising_E = np.argsort(score_E, kind="stable")
    because_N[row_E[rising_E]] = because_E[rising_E]  # the last one written is the one of the highest score
    order_N = np.argsort(-score_N, kind="stable")
    return item_N[order_N], score_N[order_N], because_N[order_N]
