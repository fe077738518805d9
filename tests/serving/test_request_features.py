"""Point-in-time features of requests: those of the training functions over the whole log, for any batch of questions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from recsys.features import Frame, PointInTime, compute, entities, look_up, needs
from recsys.features.state import features_file
from serving.bundle.features import Features
from serving.cascade.asked import Asked
from serving.state.history import History

HOUR, TASKS = 3_600_000, ("click", "like")
SPECS: dict[str, Any] = TypeAdapter(dict[str, PointInTime]).validate_python({
    "item_rate": {"kind": "rate", "by": ["item"], "event": "click", "window": "30h", "delay": "1h", "prior": 0.1,
        "strength": 2},
    "taste": {"kind": "count", "by": ["user", "kind"], "event": "like", "half_life": "9h"},
    "user_clicks": {"kind": "count", "by": ["user"], "event": "click", "window": "20h", "log1p": False},
    "in_country": {"kind": "count", "by": ["country", "kind"], "event": "all", "half_life": "1d"},
    "here": {"kind": "rate", "by": ["user", "page"], "event": "like", "of": "history", "prior": 0.5, "strength": 1},
    "session": {"kind": "session_position", "gap": "2h"},
    "since": {"kind": "recency", "by": ["item", "user"], "event": "like"},
})  # fmt: skip
USERS, ITEMS, ROWS, END = 12, 9, 400, 100 * HOUR
KIND_I = np.array([0, 1, *(2 + np.arange(ITEMS) % 3)], np.int32)
COUNTRY_U = np.array([0, 1, *(2 + np.arange(USERS) % 2)], np.int32)


def log_of(rows: int, begin: int, end: int, seed: int, *, users: int = USERS) -> Frame:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(2, 2 + users, rows), rng.integers(2, 2 + ITEMS, rows)
    keys = {"user": user, "item": item, "kind": KIND_I[item], "country": COUNTRY_U[user], "page": rng.integers(1, 4, rows)}
    flags = {task: rng.random(rows) < 0.5 for task in TASKS} | {"history": np.ones(rows, bool)}
    return Frame(keys, np.sort(rng.integers(begin, end, rows)), flags)


PAST = log_of(ROWS, 0, END, seed=1)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    folder = tmp_path_factory.mktemp("features")
    for place, some in enumerate(entities(SPECS).values()):
        part = PAST.only(*needs(some))
        compute(some, part, part, until_ms=END)[1].save(folder / features_file(place))
    return load(folder)


def load(folder: Path) -> Features:
    users, items = pa.table({"feature_country": COUNTRY_U}), pa.table({"feature_kind": KIND_I})
    return Features.load(folder, SPECS, users=users, items=items, context=["hour", "page"], tasks=TASKS)


def asked(user: int, now_ms: int, live: Frame | None = None, page: int = 1) -> Asked:
    """A question; `live`: what the user has posted, after a timeline that is the bundle's."""
    live = live or PAST.take(slice(0, 0))
    item_L = np.concatenate([[3, 4], live.keys["item"]])
    bits_L = np.concatenate([[3, 3], live.flags["click"] + 2 * live.flags["like"]]).astype(np.int64)
    read_L = np.zeros_like(bits_L)  # a ranking graph that does not read behaviours
    past = History(item_L, np.concatenate([[0, END - 1], live.time_ms]), read_L, np.arange(len(item_L)) >= 2, bits_L)
    return Asked(
        user=user, past=past, history_L=item_L, time_M=np.empty(0), behaviour_L=read_L, filters=None,  # features do not read it
        context_F=np.array([7, page]), now_ms=now_ms, unknown_items=[], flags=(),
    )  # fmt: skip


def lives(user: int, rows: int, seed: int) -> Frame:
    """A user's own events since the bundle, in an unknown context."""
    found = log_of(rows, END, END + 30 * HOUR, seed, users=1)
    whose = {"user": np.full(rows, user), "country": np.full(rows, COUNTRY_U[user]), "page": np.ones(rows, np.int64)}
    return Frame({**found.keys, **whose}, found.time_ms, found.flags)


def expected(user: int, now_ms: int, live: Frame | None, items: np.ndarray, page: int = 1) -> dict[str, np.ndarray]:
    """From all events in one go; features without the user from those of the bundle."""
    keys = {
        "user": np.full(len(items), user), "item": items, "kind": KIND_I[items],
        "country": np.full(len(items), COUNTRY_U[user]), "page": np.full(len(items), page),
    }  # fmt: skip
    queries = Frame(keys, np.full(len(items), now_ms))
    own = {name: spec for name, spec in SPECS.items() if "user" in spec.by}
    rest = {name: spec for name, spec in SPECS.items() if "user" not in spec.by}
    return look_up(own, PAST.then(live) if live is not None else PAST, queries) | look_up(rest, PAST, queries)


def check(features: Features, found_KP: np.ndarray, wanted: dict[str, np.ndarray]) -> None:
    for p, name in enumerate(features.names):
        assert found_KP[:, p].tobytes() == wanted[name].tobytes(), name


def test_a_request_has_the_bits_of_the_training_functions(features: Features) -> None:
    items = np.array([5, 2, 9, 10, 3])
    for user in (2, 5, 13):
        for hours in (0, 1, 7, 29, 31, 500):
            live, now_ms = lives(user, 9, seed=user), END + hours * HOUR
            [found_KP] = features.dense([asked(user, now_ms, live, page=2)], items[None])
            check(features, found_KP, expected(user, now_ms, live, items, page=2))
    assert found_KP.dtype == np.float32
    assert features.names == tuple(SPECS)


def test_a_batch_is_what_its_questions_are_alone(features: Features) -> None:
    """Two askers whom the bundle does not know, and one user twice, each with live events of their own."""
    rng = np.random.default_rng(5)
    users, now_B = [1, 1, 4, 4, 7], END + rng.integers(0, 40 * HOUR, 5)
    asked_B = [
        asked(user, int(now), lives(user, 3 + b, seed=b), page=1 + b % 3)
        for b, (user, now) in enumerate(zip(users, now_B, strict=True))
    ]
    item_BK = rng.integers(0, 2 + ITEMS, (5, 6))  # padding and the unknown item too
    together = features.dense(asked_B, item_BK)
    assert together.shape == (5, 6, len(SPECS))
    for b, each in enumerate(asked_B):
        assert together[b].tobytes() == features.dense([each], item_BK[b : b + 1])[0].tobytes()
    assert not np.array_equal(together[0], together[1])


def test_an_unknown_user_has_live_events_only(features: Features) -> None:
    items, live = np.arange(2, 2 + ITEMS), lives(1, 6, seed=3)
    [found_KP] = features.dense([asked(1, END + 31 * HOUR, live)], items[None])
    user_clicks = found_KP[:, features.names.index("user_clicks")]
    window = live.time_ms >= END + 11 * HOUR
    assert set(user_clicks) == {live.flags["click"][window].sum()}
    [nobody_KP] = features.dense([asked(1, END + 31 * HOUR)], items[None])
    assert nobody_KP[:, features.names.index("user_clicks")].tolist() == [0] * ITEMS


def test_what_lies_before_the_state_is_left_out_and_a_request_from_then_is_as_of_its_end(features: Features) -> None:
    items, live = np.array([2, 3]), lives(6, 5, seed=2)
    late = Frame(live.keys, np.full(5, END - HOUR), live.flags)
    for early in (0, END - 1):
        [found_KP] = features.dense([asked(6, early, late)], items[None])
        check(features, found_KP, expected(6, END, None, items))


def test_an_event_of_now_is_not_seen(features: Features) -> None:
    items, live = np.array([2, 3]), lives(6, 1, seed=2)
    now_ms = int(live.time_ms[0])
    before, at, after = (features.dense([asked(6, now_ms + ms, live)], items[None])[0] for ms in (-1, 0, 1))
    session = features.names.index("session")
    assert at[0, session] == before[0, session]
    assert after[0, session] == before[0, session] + 1


def test_no_candidates_have_no_features(features: Features) -> None:
    found = features.dense([asked(5, END + HOUR), asked(1, END + HOUR)], np.empty((2, 0), np.int64))
    assert (found.shape, found.dtype) == ((2, 0, len(SPECS)), np.float32)
    assert features.by_name(asked(5, END + HOUR), np.empty(0, np.int64)) == {name: [] for name in SPECS}


def test_a_log_of_requests_has_the_values_by_name(features: Features) -> None:
    question, items = asked(5, END + HOUR, lives(5, 4, seed=9)), np.array([4, 8])
    found = features.by_name(question, items)
    assert list(found) == list(SPECS)
    assert np.float32(list(found.values())).T.tobytes() == features.dense([question], items[None])[0].tobytes()
    other = replace(question, now_ms=END + 9 * HOUR)
    assert features.by_name(other, items) != found
