"""Test users as the serving code knows users: the questions that they asked then, with what was known then.

Shapes: U = users judged, F = context features, X = examples of the split.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from recsys.columns import LENGTH, TIME_MS, UNKNOWN_ID, USER, USER_ID, context
from recsys.dataset import Dataset
from recsys.evaluate import Judged, RequestTime
from serving.bundle.bundle import Bundle
from serving.cascade.asked import Asked, resolve
from serving.schema import Query
from serving.state.store import Live


def questions(
    bundle: Bundle, data: Dataset, judged: Judged, split: int, *, k: int, filter_seen: bool, request_time: RequestTime
) -> list[Asked]:
    """One for each judged user, as of the moment for which they are judged."""
    before = as_of(bundle, data, split)
    ids = bundle.users[USER_ID].take(pa.array(judged.user_U)).to_pylist()
    time_ms_U = judged.time_ms.item_E[judged.time_ms.offset_U1[1:] - 1]
    context_UF = _contexts(data, judged.user_U, time_ms_U, split, request_time)
    found = []
    for user_id, time_ms, context_F in zip(ids, time_ms_U.tolist(), context_UF, strict=True):
        query = Query(user_id=user_id, k=k, time_ms=max(0, time_ms), filter_seen=filter_seen)
        found.append(replace(resolve(before, query, Live()), context_F=context_F))
    return found


def as_of(bundle: Bundle, data: Dataset, split: int) -> Bundle:
    """The bundle with timelines that end where the split begins. Its own go on to the end of the log: the answers."""
    length_U = data.events(split)[0] - data.start_U
    users = bundle.users
    place = users.column_names.index(LENGTH)
    return replace(bundle, users=users.set_column(place, LENGTH, pa.array(length_U, users.schema.field(LENGTH).type)))


def _contexts(
    data: Dataset, user_U: np.ndarray, time_ms_U: np.ndarray, split: int, request_time: RequestTime
) -> np.ndarray:  # fmt: skip
    """code_UF of the moment: of the user's example of that time. UNKNOWN_ID without one, and where a model must not know when
    the user came back."""
    code_UF = np.full((len(user_U), len(data.context)), UNKNOWN_ID, np.int64)
    row_X = data.example_rows(split)
    if request_time != "target" or not data.context or not len(row_X) or TIME_MS not in data.examples:
        return code_UF
    moments = np.stack([np.asarray(data.examples[name][row_X], np.int64) for name in (USER, TIME_MS)], axis=1)
    moment_M2, first_M = np.unique(moments, axis=0, return_index=True)
    row_of = dict(zip(map(tuple, moment_M2.tolist()), row_X[first_M].tolist(), strict=True))
    rows = [row_of.get(moment, -1) for moment in zip(user_U.tolist(), time_ms_U.tolist(), strict=True)]
    known_U = np.array(rows) >= 0
    for place, name in enumerate(data.context):
        code_UF[known_U, place] = data.examples[context(name)][np.array(rows)[known_U]]
    return code_UF
