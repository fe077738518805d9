"""Point-in-time features of candidates at the moment of a request, by the functions that made the training table.

What is known of the past is the bundle's state as of the end of its dataset. On top of it come the user's own live events:

- Keys with the user in them are exact: all that the state has, and every live event of the user from then on.
- Keys without the user (an item's clicks, a country's) are as of the bundle. Windows move on and recency grows as time passes,
  but what others have done since is not seen, nor what this user has: a bundle every day keeps that below a day.

A live event is one row of a log: it is `history` (and `all`), and it is a task where it was posted as that. What no client
posts is not seen: impressions, labels that are no task of the ranker, and the context in which a live event happened, which is
unknown. Live events from before the end of the dataset are left out, since nothing can be added to a state that is past them. A
request for a time before that is answered as of the end of the dataset.

Shapes: B = questions, K = candidates, L = history, F = context features, P = point-in-time features, N = B times K.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.columns import ITEM, UNKNOWN_ID, USER, feature
from recsys.features import Frame, PointInTime, Standing, State, entities, look_up
from recsys.features.state import features_file
from recsys.jagged import ranges

if TYPE_CHECKING:  # a bundle has features, and a question knows its bundle
    from serving.cascade.asked import Asked

Array = NDArray[Any]
HISTORY = "history"


class ByUser:
    """Features of one key that has the user in it. The state is sorted by user, so that a request reads that user's part."""

    def __init__(self, features: Mapping[str, PointInTime], state: State) -> None:
        self.features, self.time_ms = features, state.time_ms
        [self.by] = entities(features)
        order = np.argsort(state.tail.keys[USER], kind="stable")
        self._tail, self._summaries = state.tail.take(order), state.summaries

    def __call__(self, user_B: Array, events: Frame, queries: Frame) -> dict[str, Array]:
        """Values at the queries. In both frames the user is a place in `user_B`, so that two questions of users whom the bundle
        does not know, or of one user, see their own live events only. Equal keys are looked up once."""
        key_D, row_D, place_Q = np.unique(queries.key(self.by), return_index=True, return_inverse=True)
        asked = queries.take(row_D)
        known_D = Frame({**asked.keys, USER: user_B[asked.keys[USER]]}, asked.time_ms).key(self.by)
        summaries = {name: summary.under(known_D, key_D) for name, summary in self._summaries.items()}
        found = look_up(self.features, events, asked, State(self.time_ms, self._tail_of(user_B), summaries))
        return {name: value_D[place_Q] for name, value_D in found.items()}

    def _tail_of(self, user_B: Array) -> Frame:
        """Oldest first."""
        first_B, end_B = (self._tail.keys[USER].searchsorted(user_B + more) for more in (0, 1))
        row_N = ranges(first_B, end_B - first_B)
        place_N = np.repeat(np.arange(len(user_B)), end_B - first_B)
        tail = self._tail.take(row_N)
        tail = Frame({**tail.keys, USER: place_N}, tail.time_ms, tail.flags)
        return tail if len(user_B) == 1 else tail.take(np.argsort(tail.time_ms, kind="stable"))


@dataclass(frozen=True)
class Features:
    """The features of a bundle's ranking graph, in the order in which the graph reads them."""

    names: tuple[str, ...]
    groups: tuple[tuple[tuple[str, ...], ByUser | Standing], ...]  # by key
    code: Mapping[str, tuple[str, Array]]  # user and item features that are keys: owner, and the code of every row
    context: tuple[str, ...]
    tasks: tuple[str, ...]
    time_ms: int  # of the state

    @classmethod
    def load(
        cls, folder: Path, features: Mapping[str, PointInTime], *, users: pa.Table, items: pa.Table, context: Sequence[str],
        tasks: Sequence[str],
    ) -> "Features":  # fmt: skip
        groups: list[tuple[tuple[str, ...], ByUser | Standing]] = []
        time_ms = 0
        for place, (by, some) in enumerate(entities(features).items()):
            chosen, state = {name: features[name] for name in some}, State.load(folder / features_file(place))
            group = ByUser(chosen, state) if USER in by else Standing(chosen, state)
            if isinstance(group, Standing):  # sums up, so that the first request need not
                group(Frame({name: np.ones(1, np.int64) for name in by}, np.array([state.time_ms])))
            groups.append((by, group))
            time_ms = max(time_ms, state.time_ms)
        keys = {name for by, _ in groups for name in by} - {USER, ITEM, *context}
        tables = {ITEM: items, USER: users}
        code = {
            name: (owner, table[feature(name)].combine_chunks().to_numpy())
            for name in sorted(keys)
            for owner, table in tables.items()
            if feature(name) in table.column_names
        }
        return cls(tuple(features), tuple(groups), code, tuple(context), tuple(tasks), time_ms)

    def dense(self, asked_B: Sequence["Asked"], item_BK: Array) -> Array:
        """dense_BKP of candidates, 32-bit floats."""
        user_B, context_BF = np.array([asked.user for asked in asked_B]), np.stack([asked.context_F for asked in asked_B])
        now_B = np.maximum([asked.now_ms for asked in asked_B], self.time_ms)
        place_N, item_N = np.repeat(np.arange(len(asked_B)), item_BK.shape[1]), item_BK.ravel()
        events, unknown_BF = self._events(asked_B), np.full_like(context_BF, UNKNOWN_ID)
        values: dict[str, Array] = {}
        for by, group in self.groups:
            queries = Frame(self._keys(by, place_N, item_N, user_B, context_BF), now_B[place_N])
            if isinstance(group, Standing):
                values |= group(queries)
            else:
                keys = self._keys(by, events.keys[USER], events.keys[ITEM], user_B, unknown_BF)
                values |= group(user_B, Frame(keys, events.time_ms, events.flags), queries)
        dense_BKP: Array = np.stack([values[name] for name in self.names], axis=-1).reshape(*item_BK.shape, len(self.names))
        return dense_BKP

    def by_name(self, asked: "Asked", item_K: Array) -> dict[str, list[float]]:
        """What the graph reads of the candidates of one question, for a log."""
        dense_PK = self.dense([asked], item_K[None])[0].T
        return {name: value_K.tolist() for name, value_K in zip(self.names, dense_PK, strict=True)}

    def _keys(
        self, by: tuple[str, ...], place_N: Array, item_N: Array, user_B: Array, context_BF: Array
    ) -> dict[str, Array]:  # fmt: skip
        """Codes of rows, each of an item and a question; the user is the question's place."""
        keys: dict[str, Array] = {}
        for name in by:
            if name in (USER, ITEM):
                keys[name] = place_N if name == USER else item_N
            elif name in self.context:
                keys[name] = context_BF[place_N, self.context.index(name)]
            else:
                owner, code = self.code[name]
                keys[name] = code[item_N if owner == ITEM else user_B[place_N]]
        return keys

    def _events(self, asked_B: Sequence["Asked"]) -> Frame:
        """The live events of all questions as rows of a log, those since the state."""
        rows = [np.flatnonzero(asked.past.live_L & (asked.past.time_ms_L >= self.time_ms)) for asked in asked_B]
        item_E, time_E, posted_E = (
            np.concatenate([getattr(asked.past, name)[row_E] for asked, row_E in zip(asked_B, rows, strict=True)])
            for name in ("item_L", "time_ms_L", "posted_L")
        )
        flags = {task: (posted_E >> bit & 1).astype(bool) for bit, task in enumerate(self.tasks)}
        place_E = np.repeat(np.arange(len(rows)), [len(row_E) for row_E in rows])
        return Frame({USER: place_E, ITEM: item_E}, time_E, {**flags, HISTORY: np.ones(len(item_E), bool)})
