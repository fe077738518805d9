"""A query in, exactly k items out: history -> candidates -> probabilities of every task -> value -> order. No server needed.

`resolve` checks one query against the bundle and turns it into dense ids; `rank` answers any number of resolved queries in
one pass through the graphs. B = queries, L = history, E = excluded items, K = candidates, T = tasks, F = context features.
"""

import json
import reprlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, model_validator

from recsys.columns import FIRST_ID, PADDING_ID, UNKNOWN_ID
from recsys.errors import InputError
from recsys.spec import Spec
from serving.bundle import Array, Bundle
from serving.candidates import find, order

MAX_IDS = 10_000
ContextValue = Annotated[str, Field(max_length=1000)]


class UnknownUserError(InputError):
    """The bundle has no such user."""


class Query(Spec):
    """Who asks (`user_id`, or `history`: external item ids, oldest first) and for what."""

    model_config = ConfigDict(strict=True, json_schema_extra={"example": {"user_id": "u1", "k": 10}})
    user_id: str | None = None
    history: list[str] | None = Field(None, max_length=MAX_IDS)
    k: int = Field(10, ge=1)
    exclude: list[str] = Field([], max_length=MAX_IDS)
    filter_seen: bool = True
    context: dict[str, ContextValue] | None = Field(None, description="category by feature; one never seen is unknown")
    time_ms: int | None = Field(
        None,
        ge=0,
        le=2**53,
        description="when the list is asked for, milliseconds since 1970; default: now. Items of `history` count as of then",
    )

    @model_validator(mode="after")
    def _one_of_user_and_history(self) -> Self:
        if (self.user_id is None) == (self.history is None):
            given = "neither" if self.user_id is None else "both"
            raise ValueError(f"{given} of `user_id` and `history` given: send exactly one of them")
        if self.history == []:
            raise ValueError("history is []: send at least one item id, or a `user_id`")
        return self


EXAMPLE: dict[str, Any] = {
    "items": [
        {
            "item_id": "i7",
            "title": None,
            "score": 0.61,
            "retrieval_score": -2.3,
            "source": "generation",
            "tasks": {"click": 0.61},
        },
        {
            "item_id": "i2",
            "title": None,
            "score": 0.74,
            "retrieval_score": 5.1,
            "source": "retrieval",
            "tasks": {"click": 0.74},
        },
    ],
    "filled_from": "retrieval",
    "unknown_items": [],
    "model": "demo",
    "version": "0123456789abcdef",
    "lineage": {"config": "demo"},
}


class Item(Spec):
    item_id: str
    title: str | None = None
    score: float = Field(description="the value formula over the tasks; the retrieval score where there are no tasks")
    retrieval_score: float = Field(
        description="of the graph in `source`, the retriever's similarity or the generator's log-probability of the item; "
        "scores of two sources cannot be compared"
    )
    source: Literal["retrieval", "generation"] = Field(description="the graph that found the item")
    tasks: dict[str, float] = Field(description="probability of each task")


class Recommendations(Spec):
    """Best first, what fills up after the rest. `unknown_items` are the caller's ids that the bundle does not have."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})
    items: list[Item]
    filled_from: Literal["retrieval"] | None = Field(
        description="retrieval: the generator found fewer than k items, and the last ones of the list are the retriever's; "
        "null: all items are of one source"
    )
    unknown_items: list[str]
    model: str
    version: str
    lineage: dict[str, Any]


@dataclass(frozen=True)
class Resolved:
    """A query in dense ids, known to be answerable."""

    query: Query
    user: int
    history_L: Array
    time_M: Array  # milliseconds of each event of the history and of the request
    behaviour_L: Array  # what each event of the history was; 0 for one that the caller names
    exclude_E: Array
    context_F: Array
    unknown_items: list[str]


def recommend(bundle: Bundle, query: Query) -> Recommendations:
    [answer] = rank(bundle, [resolve(bundle, query)])
    return answer


def parse_query(body: bytes | str) -> Query:
    """A query from JSON. Raises InputError with one sentence about the first thing that is wrong."""
    try:
        return Query.model_validate_json(body)
    except ValidationError as error:
        raise InputError(_sentence(error)) from error


def resolve(bundle: Bundle, query: Query) -> Resolved:
    """Dense ids for one query. Raises InputError where the bundle cannot answer it."""
    facts = bundle.facts
    if query.k > facts.num_candidates:
        raise InputError(f"k is {query.k}: ask for 1 to {facts.num_candidates}, the candidates this bundle ranks")
    user, timeline_L, time_L, unknown_history = _history(bundle, query)
    excluded_E, unknown_excluded = _dense_items(bundle, query.exclude)
    if query.filter_seen:
        excluded_E = np.concatenate([excluded_E, timeline_L])
    exclude_E = np.unique(excluded_E[excluded_E >= FIRST_ID])
    left = facts.num_items - FIRST_ID - len(exclude_E)
    if query.k > left:
        raise InputError(
            f"k is {query.k} but {left} items are left after what was seen and excluded: "
            "lower k, shorten `exclude` or set `filter_seen` to false"
        )
    context_F = _context(facts.context, query.context or {})
    unknown_items = list(dict.fromkeys(unknown_history + unknown_excluded))
    now_ms = int(time.time() * 1000) if query.time_ms is None else query.time_ms
    time_M = np.append(np.full(len(timeline_L), now_ms) if time_L is None else time_L, now_ms)
    history_L, time_M = timeline_L[-facts.max_history :], time_M[-facts.max_history - 1 :]
    is_ours = bundle.reads_behaviours and query.user_id is not None
    behaviour_L = bundle.behaviours_of(user)[-facts.max_history :] if is_ours else np.zeros(len(history_L), np.int64)
    return Resolved(query, user, history_L, time_M, behaviour_L, exclude_E, context_F, unknown_items)


def rank(bundle: Bundle, requests: Sequence[Resolved]) -> list[Recommendations]:
    """Answer resolved queries together: each graph runs once."""
    history_BL, length_B = _padded([request.history_L for request in requests])
    exclude_BE, _ = _padded([request.exclude_E for request in requests])
    found = {"history": history_BL, "length": length_B, "exclude": exclude_BE}
    if bundle.reads_time:
        found["time"], _ = _padded([request.time_M for request in requests], columns=history_BL.shape[1] + 1)
    candidates = find(bundle, found, np.array([request.query.k for request in requests]))
    item_BK, retrieval_BK = candidates.item_BK, candidates.score_BK

    probability_BKT = np.zeros((*item_BK.shape, 0), dtype=np.float32)
    value_BK = retrieval_BK
    if bundle.ranking is not None:
        user_B = np.array([request.user for request in requests], dtype=np.int64)
        ranked = {"user": user_B, "history": history_BL, "length": length_B, "item": item_BK}
        if bundle.facts.context:
            ranked["context"] = np.stack([request.context_F for request in requests])
        if bundle.reads_behaviours:
            ranked["behaviour"], _ = _padded([request.behaviour_L for request in requests])
        [probability_BKT] = bundle.ranking.run(["probability"], ranked)
        weight_T = np.array([bundle.facts.value.get(task, 0.0) for task in bundle.facts.tasks])
        if np.isnan(probability_BKT).any():
            raise RuntimeError(f"the ranking graph of {bundle.name} gave a probability that is not a number")
        value_BK = np.where(np.isneginf(retrieval_BK), -np.inf, probability_BKT @ weight_T)

    order_BK = order(candidates, value_BK)
    answers = []
    for b, request in enumerate(requests):
        top_k = order_BK[b, : request.query.k]
        fill_K = candidates.fill_BK[b, top_k]
        items = _items(bundle, item_BK[b, top_k], value_BK[b, top_k], retrieval_BK[b, top_k], fill_K, probability_BKT[b, top_k])
        answers.append(
            Recommendations(
                items=items,
                filled_from="retrieval" if fill_K.any() else None,
                unknown_items=request.unknown_items,
                model=bundle.name,
                version=bundle.version,
                lineage=bundle.lineage,
            )
        )
    return answers


def _history(bundle: Bundle, query: Query) -> tuple[int, Array, Array | None, list[str]]:
    """The user's dense id, all their items oldest first, when they had them (None: not known), and the ids that are unknown."""
    if query.user_id is not None:
        user = bundle.user_index.find(query.user_id)
        if user < FIRST_ID:
            raise UnknownUserError(
                f"user_id {reprlib.repr(query.user_id)} is not in this bundle: send their item ids as `history`"
            )
        return user, bundle.timeline_of(user).astype(np.int64), bundle.times_of(user), []
    given = query.history or []
    history_L, unknown = _dense_items(bundle, given)
    if len(unknown) == len(given):
        known = bundle.item_id(FIRST_ID)
        raise InputError(f"history is {reprlib.repr(given)}: this bundle has none of these items; an id it has is {known!r}")
    return UNKNOWN_ID, history_L, None, unknown


def _dense_items(bundle: Bundle, texts: list[str]) -> tuple[Array, list[str]]:
    rows = [bundle.item_index.find(text) for text in texts]
    unknown = [text for text, row in zip(texts, rows, strict=True) if row < FIRST_ID]
    return np.array(rows, dtype=np.int64), unknown


def _context(known: dict[str, tuple[str, ...]], given: dict[str, str]) -> Array:
    """code_F of the values given; UNKNOWN_ID for a feature left out and for a value that training never saw."""
    if unknown := sorted(set(given) - set(known)):
        choices = f"send {', '.join(known)}" if known else "this bundle takes none"
        raise InputError(f"context has an unknown feature {reprlib.repr(unknown[0])}: {choices}")
    codes = [
        FIRST_ID + values.index(given[name]) if given.get(name) in values else UNKNOWN_ID for name, values in known.items()
    ]
    return np.array(codes, dtype=np.int64)


def _padded(rows: Sequence[Array], *, columns: int = 1) -> tuple[Array, Array]:
    """Rows of different length -> (B, longest, at least `columns`) filled with padding on the right, and the lengths."""
    length_B = np.array([len(row) for row in rows], dtype=np.int64)
    out_BL = np.full((len(rows), max(columns, length_B.max())), PADDING_ID, dtype=np.int64)
    out_BL[np.arange(out_BL.shape[1]) < length_B[:, None]] = np.concatenate(rows)
    return out_BL, length_B


def _items(
    bundle: Bundle, item_K: Array, value_K: Array, retrieval_K: Array, fill_K: Array, probability_KT: Array
) -> list[Item]:
    """Rows of the answer; places for which no graph had an item are left out."""
    there_K = np.isfinite(retrieval_K)
    columns = (column[there_K].tolist() for column in (item_K, value_K, retrieval_K, fill_K, probability_KT))
    return [
        Item(
            item_id=bundle.item_id(item),
            title=bundle.title(item),
            score=value,
            retrieval_score=score,
            source="retrieval" if is_fill else bundle.facts.candidates,
            tasks=dict(zip(bundle.facts.tasks, probability_T, strict=True)),
        )
        for item, value, score, is_fill, probability_T in zip(*columns, strict=True)
    ]


def _sentence(error: ValidationError) -> str:
    """The first thing wrong: field, value and what to send instead."""
    first = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    match first["type"]:
        case "value_error":
            return str(first["ctx"]["error"])
        case "json_invalid":
            return f"body is not JSON ({first['ctx']['error']}): send an object like {json.dumps({'user_id': 'u1', 'k': 10})}"
        case "extra_forbidden":
            return f"unknown field {reprlib.repr(place)}: the fields are {', '.join(Query.model_fields)}"
        case _:
            message = first["msg"][0].lower() + first["msg"][1:]
            return f"{place or 'body'} is {reprlib.repr(first['input'])}: {message}"
