"""What a request should have been given, worked out from the whole log as of its time.

Shapes: Q = candidates of all requests, X = examples, E = timeline events, R = rows of the log.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from pipelines.skew.logged import Logged
from recsys.behaviours import behaviours
from recsys.columns import FIRST_ID, ITEM, TIME_MS, UNKNOWN_ID, USER, asof, context, label
from recsys.dataset import Dataset
from recsys.features import Frame, PointInTime, look_up, needs

HISTORY = "history"
ROW = (USER, ITEM, TIME_MS)


class Offline:
    """A dataset made of the log that has, by now, all that the requests could see.

    The rows of the log are the examples and those timeline events that are none; rows without labels outside of the timeline
    are not in a dataset, so that a feature of `all` events does not see them here.
    """

    def __init__(self, data: Dataset, tasks: Sequence[str]) -> None:
        self.data, self.tasks = data, list(tasks)
        self.user_of = {text: row for row, text in enumerate(data.user_ids) if text is not None}
        self.item_of = {text: row for row, text in enumerate(data.item_ids) if text is not None}

    @property
    def newest_ms(self) -> int:
        """Up to when the log goes."""
        return int(self.data.manifest["newest_ms"])

    def history(self, each: Logged, longest: int) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
        """Items, times and behaviours of the user's events before the request, the newest `longest`."""
        user = self.user_of.get(each.user_id or "", UNKNOWN_ID)
        start, length = int(self.data.start_U[user]), int(self.data.length_U[user])
        time_ms_E = self.data.time_ms_E[start : start + length]
        end = int(np.searchsorted(time_ms_E, each.time_ms))
        part = slice(start + max(0, end - longest), start + end)
        items = tuple(str(self.data.item_ids[item]) for item in self.data.item_E[part].tolist())
        return items, tuple(self.data.time_ms_E[part].tolist()), tuple(self._behaviour_E[part].tolist())

    def features(self, specs: Mapping[str, PointInTime], logged: Sequence[Logged]) -> list[dict[str, np.ndarray]]:
        """By feature the values of each request's items."""
        keys, flags = needs(specs)
        values = look_up(specs, self._log(keys, flags), self._queries(keys, logged))
        ends = np.cumsum([len(each.items) for each in logged])[:-1]
        parts = {name: np.split(value_Q, ends) for name, value_Q in values.items()}
        return [{name: part[place] for name, part in parts.items()} for place in range(len(logged))]

    @cached_property
    def _behaviour_E(self) -> np.ndarray:
        return behaviours(self.data, self.tasks)

    def _log(self, keys: Sequence[str], flags: Sequence[str]) -> Frame:
        """Examples, then the timeline events that are none."""
        examples, rows_X, events_E = self.data.examples, self._examples(), self._events()
        in_timeline_X, rest_E = np.isin(rows_X, events_E), ~np.isin(events_E, rows_X)
        rows_R, more = np.concatenate([rows_X, events_E[rest_E]]), int(rest_E.sum())
        flag = {HISTORY: np.concatenate([in_timeline_X, np.ones(more, bool)])}
        for name in flags:
            if name != HISTORY:
                flag[name] = np.concatenate([np.asarray(examples[label(name)][:]) > 0, np.zeros(more, bool)])
        codes = {name: self._codes(name, rows_R[USER], rows_R[ITEM], None) for name in keys}
        for name in keys:  # in an example stands what held then
            given = next((column for column in (context(name), asof(name)) if column in examples), None)
            if given is not None:
                codes[name] = np.concatenate([examples[given][:], codes[name][len(rows_X) :]])
        return Frame(codes, rows_R[TIME_MS], flag)

    def _examples(self) -> np.ndarray:
        """Records of user, item and time, none where the dataset has no examples."""
        examples = self.data.examples
        return _records({name: examples[name][:] if examples else np.empty(0, np.int64) for name in ROW})

    def _events(self) -> np.ndarray:
        """The same of the timeline."""
        user_E = np.repeat(np.arange(self.data.num_users), self.data.length_U)
        return _records({USER: user_E, ITEM: self.data.item_E, TIME_MS: self.data.time_ms_E})

    def _queries(self, keys: Sequence[str], logged: Sequence[Logged]) -> Frame:
        lengths = [len(each.items) for each in logged]
        item_Q = np.array([self.item_of.get(item, UNKNOWN_ID) for each in logged for item in each.items], np.int64)
        user_Q = np.repeat([self.user_of.get(each.user_id or "", UNKNOWN_ID) for each in logged], lengths)
        time_Q = np.repeat([each.time_ms for each in logged], lengths)
        requests = np.repeat(np.arange(len(logged)), lengths)
        given = {name: self._given(name, logged)[requests] for name in keys if name in self.data.context}
        return Frame({name: self._codes(name, user_Q, item_Q, given.get(name)) for name in keys}, time_Q)

    def _given(self, name: str, logged: Sequence[Logged]) -> np.ndarray:
        code_of = {value: code for code, value in enumerate(self.data.vocabulary("context", name), FIRST_ID)}
        return np.array([code_of.get(each.context.get(name, ""), UNKNOWN_ID) for each in logged])

    def _codes(self, name: str, user_R: np.ndarray, item_R: np.ndarray, given_R: np.ndarray | None) -> np.ndarray:
        if name in (USER, ITEM):
            return user_R if name == USER else item_R
        if name in self.data.context:
            return np.full(len(user_R), UNKNOWN_ID) if given_R is None else given_R
        [owner] = [each["owner"] for each in self.data.features if each["name"] == name]
        return self.data.codes(name, owner).item_E[item_R if owner == ITEM else user_R]


def _records(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    rows_R = np.empty(len(columns[USER]), [(name, np.int64) for name in ROW])
    for name in ROW:
        rows_R[name] = columns[name]
    return rows_R
