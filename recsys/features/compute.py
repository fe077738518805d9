"""Point-in-time features of the rows of a log or of the candidates of a request, and the state that later rows need."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from recsys.errors import InputError
from recsys.features.frame import BEGINNING_MS, EVERY, Frame
from recsys.features.ledger import Ledger
from recsys.features.state import State, Summary
from recsys.features.tally import Feature, Recalled, Tally


def compute(
    features: Mapping[str, Feature], events: Frame, queries: Frame, state: State | None = None, *, until_ms: int = BEGINNING_MS
) -> tuple[dict[str, np.ndarray], State]:
    """Each feature's float32 values at the queries, and the state for later events.

    `events` and `queries` may be the same rows: a row sees only what lies before it. `state` is what an earlier call returned
    for all events before these. The new state is as of the newest event, or of `until_ms` where nothing before that is still to
    come. Raises InputError for an event or a query before the state.
    """
    until_ms = max(until_ms, events.newest_ms, state.time_ms if state else BEGINNING_MS)
    values: dict[str, np.ndarray] = {}
    summaries: dict[str, Summary] = {}
    for some, ledger in _ledgers(features, events, queries, state, until_ms):
        values |= _values(some, ledger.recall)
        summaries |= {repr(tally): ledger.summary(tally) for tally in _tallies(some)}
    tail = _tail(_tallies(features), events, state, until_ms)
    return {name: values[name] for name in features}, State(until_ms, tail, summaries)


def look_up(
    features: Mapping[str, Feature], events: Frame, queries: Frame, state: State | None = None
) -> dict[str, np.ndarray]:
    """`compute` without a new state: for requests."""
    until_ms = max(events.newest_ms, state.time_ms if state else BEGINNING_MS)
    values: dict[str, np.ndarray] = {}
    for some, ledger in _ledgers(features, events, queries, state, until_ms):
        values |= _values(some, ledger.recall)
    return {name: values[name] for name in features}


class Standing:
    """`look_up` without events, for features of one `by`: the state is laid out once, and then asked again and again."""

    def __init__(self, features: Mapping[str, Feature], state: State) -> None:
        [(by, _)] = entities(features).items()
        self.features, self.state = features, state
        self._ledger = Ledger(by, state.tail.take(slice(0, 0)), None, state, state.time_ms)

    def __call__(self, queries: Frame) -> dict[str, np.ndarray]:
        """Each feature's float32 values at queries of any key, from the time of the state on."""
        return _values(self.features, self._ledger.later(queries))


def entities(features: Mapping[str, Feature]) -> dict[tuple[str, ...], dict[str, Feature]]:
    """The features of each distinct `by`, which can be computed apart, each with a state of its own."""
    found: dict[tuple[str, ...], dict[str, Feature]] = {}
    for name, feature in features.items():
        found.setdefault(feature.by, {})[name] = feature
    return found


def needs(features: Mapping[str, Feature]) -> tuple[list[str], list[str]]:
    """The names of the keys and of the flags that `compute` reads, sorted."""
    tallies = _tallies(features)
    return sorted({name for tally in tallies for name in tally.by}), sorted({tally.event for tally in tallies} - {EVERY})


def _ledgers(
    features: Mapping[str, Feature], events: Frame, queries: Frame, state: State | None, until_ms: int
) -> Iterator[tuple[dict[str, Feature], Ledger]]:
    if state is not None:
        for what, frame in (("event", events), ("query", queries)):
            if len(frame) and int(frame.time_ms.min()) < state.time_ms:
                raise InputError(
                    f"{what} at time_ms {frame.time_ms.min()} comes before {state.time_ms}, up to which the state of the "
                    "point-in-time features has summed up: compute them again from the first event on"
                )
    for by, some in entities(features).items():
        yield some, Ledger(by, events, queries, state, until_ms)


def _values(features: Mapping[str, Feature], recall: Callable[[Tally], Recalled]) -> dict[str, np.ndarray]:
    recalled = {tally: recall(tally) for tally in _tallies(features)}
    return {name: feature(*[recalled[tally] for tally in feature.tallies]) for name, feature in features.items()}


def _tallies(features: Mapping[str, Feature]) -> list[Tally]:
    return list(dict.fromkeys(tally for feature in features.values() for tally in feature.tallies))


def _tail(tallies: list[Tally], events: Frame, state: State | None, until_ms: int) -> Frame:
    """The events that are still to enter or to leave a tally, oldest first, those of one time in order of arrival."""
    from_ms = until_ms - max((tally.delay_ms + (tally.window_ms or 0) for tally in tallies), default=0)
    counts = np.zeros(len(events), bool)
    for event in {tally.event for tally in tallies}:
        counts |= events.flag(event)
    new = events.take(np.flatnonzero(counts & (events.time_ms >= from_ms)))
    names = {name for tally in tallies for name in tally.by}, {tally.event for tally in tallies}
    new = new.take(np.argsort(new.time_ms, kind="stable")).only(*names)
    if state is None:
        return new
    return state.tail.take(slice(int(np.searchsorted(state.tail.time_ms, from_ms)), None)).then(new)
