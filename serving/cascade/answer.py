"""From scored candidates to the k items of the answer: rerankers, the ladder that fills up, and the words for it.

Shapes: K = candidates, N = items of the answer.
"""

from typing import Literal

import numpy as np

from serving.answers import Explanation, Flag, HistoryEntry, Item, Recommendations, Rung, Source
from serving.bundle.bundle import Array, Bundle
from serving.cascade import reason
from serving.cascade.asked import Asked
from serving.cascade.fallback import StandIn, stand_ins
from serving.cascade.filters import AS_ASKED
from serving.cascade.rerank import rerank
from serving.cascade.score import Scored
from serving.schema import Query

EXPLAINED = 200  # entries of a history and candidates that an explanation shows
LADDER: tuple[Rung, ...] = ("retrieval", "session", "segment", "popularity")


def answer(
    bundle: Bundle, query: Query, asked: Asked, scored: Scored | None, *, request_id: str,
    arm: Literal["live", "canary", "pinned"], rng: np.random.Generator, stages_ms: dict[str, float],
) -> Recommendations:  # fmt: skip
    """`scored`: None where the model failed. `rng`: what exploration draws from. Exactly k items, or the flag `short`."""
    flags: list[Flag] = list(asked.flags)
    items: list[Item] = []
    taken_K = np.empty(0, np.int64)
    if scored is None:
        flags.append("model_failed")
    elif len(scored.item_K):
        placed, propensity_N = rerank(bundle, scored, query.k, rng)
        items, taken_K = found_items(bundle, asked, placed, query.k, propensity_N), placed.item_K[: query.k]
    more = stand_ins(bundle, asked, taken_K, query.k - len(items)) if len(items) < query.k else []
    items += [_stand_in(bundle, asked, each) for each in more]
    if any(each.level != AS_ASKED for each in more):
        flags.append("filters_relaxed")
    if len(items) < query.k:
        flags.append("short")
    return Recommendations(
        request_id=request_id,
        items=items,
        fallback=_lowest(bundle, items),
        flags=flags,
        unknown_items=asked.unknown_items,
        model=bundle.name,
        version=bundle.version,
        arm=arm,
        explanation=_explanation(bundle, asked, scored, stages_ms) if query.explain else None,
    )


def found_items(bundle: Bundle, asked: Asked, scored: Scored, count: int, propensity_N: Array | None = None) -> list[Item]:
    """The first `count` items that the graphs found."""
    first, why, tasks = slice(count), reason.of_model(bundle, asked), bundle.facts.tasks
    given = (scored.item_K, scored.value_K, scored.score_K, scored.fill_K, scored.ranked_K)
    columns = [column[first].tolist() for column in given]
    chances = [None] * len(columns[0]) if propensity_N is None else propensity_N[first].tolist()
    return [
        Item(
            item_id=bundle.item_id(item),
            title=bundle.title(item),
            score=value if ranked else score,
            retrieval_score=score,
            source="retrieval" if is_fill else bundle.facts.candidates,
            tasks=dict(zip(tasks, probability_T, strict=True)) if ranked else {},
            propensity=chance,
            reason=why,
        )
        for item, value, score, is_fill, ranked, probability_T, chance in zip(
            *columns, scored.probability_KT[first].tolist(), chances, strict=True
        )
    ]


def _stand_in(bundle: Bundle, asked: Asked, found: StandIn) -> Item:
    source: Source = found.rung
    return Item(
        item_id=bundle.item_id(found.item),
        title=bundle.title(found.item),
        score=found.score,
        retrieval_score=None,
        source=source,
        tasks={},
        reason=reason.of_stand_in(bundle, asked, found),
    )


def _lowest(bundle: Bundle, items: list[Item]) -> Rung | None:
    """The lowest rung that filled a place; None where the graph that is asked first found all."""
    sources = {item.source for item in items} - {bundle.facts.candidates}
    return next((rung for rung in reversed(LADDER) if rung in sources), None)


def _explanation(bundle: Bundle, asked: Asked, scored: Scored | None, stages_ms: dict[str, float]) -> Explanation:
    past, last = asked.past, slice(-EXPLAINED, None)
    entries = zip(past.item_L[last].tolist(), past.time_ms_L[last].tolist(), past.live_L[last].tolist(), strict=True)
    return Explanation(
        history=[
            HistoryEntry(item_id=bundle.item_id(item), title=bundle.title(item), time_ms=time_ms, live=live)
            for item, time_ms, live in entries
        ],
        candidates=[] if scored is None else found_items(bundle, asked, scored, EXPLAINED),
        stages_ms=stages_ms,
    )
