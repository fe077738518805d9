"""Point-in-time features: numbers worked by hand, the definition written out, no look into the future."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from recsys.errors import InputError
from recsys.features import Count, Frame, PointInTime, Rate, Recency, SessionPosition, compute, entities, look_up, needs

H = 3_600_000
D = 24 * H
ADAPTER: TypeAdapter[Any] = TypeAdapter(PointInTime)

# user, item, category, time in hours, clicked, bought; items 4 and 5 are shown at the same moment
LOG = [
    (2, 4, 2, 0, 1, 0),
    (2, 5, 2, 0, 1, 1),
    (2, 4, 2, 1, 0, 0),
    (3, 4, 2, 30, 1, 0),
    (2, 6, 3, 48, 1, 1),
    (2, 4, 2, 49, 0, 0),
]


def frame(rows: list[Any], unit: int = H) -> Frame:
    user, item, category, time, click, buy = np.array(rows, np.int64).reshape(-1, 6).T
    keys = {"user": user.astype(np.int32), "item": item.astype(np.int32), "category": category.astype(np.int32)}
    return Frame(keys, time * unit, {"click": click > 0, "buy": buy > 0})


def of(**spec: Any) -> list[float]:
    rows = frame(LOG)
    return [float(value) for value in look_up({"x": ADAPTER.validate_python(spec)}, rows, rows)["x"]]


def f32(*values: float) -> list[float]:
    return [float(np.float32(value)) for value in values]


def test_counts_by_hand() -> None:
    plain = {"kind": "count", "event": "click", "log1p": False}
    assert of(**plain, by=["user"]) == [0, 0, 2, 0, 2, 3]
    assert of(**plain, by=["item"]) == [0, 0, 1, 1, 0, 2]
    assert of(**plain, by=["user", "category"]) == [0, 0, 2, 0, 0, 2]
    assert of(**plain, by=["user"], window="1d") == [0, 0, 2, 0, 0, 1]
    assert of(**plain, by=["user"], window="2d") == [0, 0, 2, 0, 2, 1]  # hour 0 is in [48 - 48, 48), not in [49 - 48, 49)
    assert of(**plain, by=["user"], delay="1h") == [0, 0, 0, 0, 2, 2]  # at 49 the click of 48 is not strictly before 48
    assert of(**{**plain, "event": "all"}, by=["user"]) == [0, 0, 2, 0, 3, 4]
    assert of(kind="count", event="buy", by=["user"]) == f32(0, 0, math.log(2), 0, math.log(2), math.log(3))


def test_a_decayed_count_by_hand() -> None:
    found = of(kind="count", by=["user"], event="click", half_life="1d", log1p=False)
    # Two clicks at hour 0: after an hour 2 * 2^(-1/24), after two days 2/4; at 49 one more, an hour old.
    assert found == pytest.approx([0, 0, 2 * 2 ** (-1 / 24), 0, 0.5, 1.5 * 2 ** (-1 / 24)], rel=1e-7)


def test_a_rate_by_hand() -> None:
    rate = {"kind": "rate", "by": ["item"], "event": "click", "of": "all", "prior": 0.1, "strength": 10}
    # Item 4: nothing; 1 click of 1 shown; 1 of 2; 2 of 3. Items 5 and 6 have not been seen before.
    assert of(**rate) == f32(0.1, 0.1, 2 / 11, 2 / 12, 0.1, 3 / 13)
    # Within a day before hour 49 item 4 was clicked once of one time, at 30.
    assert of(**rate, window="1d")[5] == pytest.approx(2 / 11)


def test_recency_by_hand() -> None:
    recency = {"kind": "recency", "by": ["user"], "event": "click"}
    assert of(**recency) == f32(-1, -1, math.log1p(3600), -1, math.log1p(48 * 3600), math.log1p(3600))
    assert of(**recency, unit="1h", never=-2, delay="2h") == f32(-2, -2, -2, -2, math.log1p(48), math.log1p(49))


def test_session_position_by_hand() -> None:
    assert of(kind="session_position", gap="2h") == [0, 0, 2, 0, 0, 1]
    assert of(kind="session_position", gap="1h") == [0] * 6  # an hour without an event ends the session
    assert of(kind="session_position", gap="7d") == [0, 0, 2, 0, 3, 4]


FEATURES: dict[str, Any] = {
    "clicks": Count(by=("user",), event="click"),
    "clicks_window": Count(by=("user",), event="click", window="10h", log1p=False),
    "item_late": Count(by=("item",), event="click", window="5h", delay="3h"),
    "pair_decayed": Count(by=("user", "category"), event="buy", half_life="4h", delay="1h"),
    "triple": Count(by=("item", "category", "user"), event="all", log1p=False),
    "ctr": Rate(by=("item",), event="click", window="9h", prior=0.2, strength=5),
    "decayed_ctr": Rate(by=("category",), event="buy", of="click", half_life="3h", prior=0.2, strength=5),
    "recency": Recency(by=("user",), event="buy", delay="2h"),
    "session": SessionPosition(gap="3h"),
}
ROW = st.tuples(*(st.integers(0, n) for n in (2, 2, 1, 30, 1, 1)))
ROWS = st.lists(ROW, max_size=25)


def defined(name: str, past: list[Any], row: Any) -> float:
    """The value of `row` by the definition, in hours; `past` may hold anything."""
    spec, time = FEATURES[name], row[3]
    same = {"user": lambda e: e[0] == row[0], "item": lambda e: e[1] == row[1], "category": lambda e: e[2] == row[2]}
    happened = {"all": lambda e: True, "click": lambda e: e[4] == 1, "buy": lambda e: e[5] == 1}
    cut = time - int(getattr(spec, "delay", "0h")[:-1])
    mine = [e for e in past if all(same[by](e) for by in spec.by) and e[3] < cut]

    def total(event: str) -> float:
        ages = [cut - e[3] for e in mine if happened[event](e)]
        if spec.half_life:
            return sum(2 ** -(age / int(spec.half_life[:-1])) for age in ages)
        return sum(age <= int((spec.window or "999h")[:-1]) for age in ages)

    match spec:
        case Count():
            return math.log1p(total(spec.event)) if spec.log1p else total(spec.event)
        case Rate():
            return (total(spec.event) + spec.prior * spec.strength) / (total(spec.of) + spec.strength)
        case Recency():
            times = [e[3] for e in mine if happened[spec.event](e)]
            return math.log1p((time - max(times)) * 3600) if times else -1
    edge, position = time, 0
    for at in sorted((e[3] for e in mine), reverse=True):
        if edge - at >= 3:
            break
        edge, position = at, position + 1
    return position


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_every_feature_is_its_definition(rows: list[Any]) -> None:
    found = look_up(FEATURES, frame(rows), frame(rows))
    for name, values in found.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, [defined(name, rows, row) for row in rows], rtol=1e-6, atol=1e-8, err_msg=name)


def bits(values: dict[str, np.ndarray], rows: Any = slice(None)) -> dict[str, bytes]:
    return {name: value[rows].tobytes() for name, value in values.items()}


@settings(max_examples=50, deadline=None)
@given(ROWS, st.lists(ROW, min_size=1, max_size=5))
def test_planted_future_events_change_no_bit_of_an_earlier_row(rows: list[Any], planted: list[Any]) -> None:
    """The leak test: what happens at or after a row's moment, to anybody, does not reach it."""
    future = [(*row[:3], row[3] + 30, *row[4:]) for row in planted]
    before, after = (look_up(FEATURES, frame(log), frame(rows)) for log in (rows, [*future, *rows]))
    assert bits(before) == bits(after)


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_online_row_by_row_gives_the_bits_of_offline(rows: list[Any]) -> None:
    """A replay: each row is a request that finds only the events that have happened until then."""
    rows = sorted(rows, key=lambda row: row[3])
    offline = look_up(FEATURES, frame(rows), frame(rows))
    for i, row in enumerate(rows):
        past = frame([event for event in rows if event[3] < row[3]])
        assert bits(look_up(FEATURES, past, frame([row]))) == bits(offline, slice(i, i + 1))


def test_candidates_nobody_has_seen_get_the_values_of_nothing() -> None:
    found = look_up(FEATURES, frame(LOG), frame([(1, 1, 1, 60, 0, 0)]))
    expected = dict.fromkeys(FEATURES, 0.0) | {"ctr": 0.2, "decayed_ctr": 0.2, "recency": -1.0}
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(expected)


def test_parts_of_the_features_can_be_computed_apart() -> None:
    whole, _ = compute(FEATURES, frame(LOG), frame(LOG))
    parts: dict[str, np.ndarray] = {}
    for by, some in entities(FEATURES).items():
        assert {spec.by for spec in some.values()} == {by}
        parts |= compute(some, frame(LOG), frame(LOG))[0]
    assert bits({name: parts[name] for name in whole}) == bits(whole)
    assert needs({"recency": FEATURES["recency"], "ctr": FEATURES["ctr"]}) == (["item", "user"], ["buy", "click"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": "7"}, "'7' is not a duration"),
        ({"window": "7 days"}, "is not a duration"),
        ({"window": "0d"}, "longer than nothing"),
        ({"delay": "-1h"}, "is not a duration"),
        ({"window": "7d", "half_life": "7d"}, "not both"),
        ({"by": []}, "at least 1 item"),
        ({"by": ["user", "user"]}, "a name twice"),
        ({"kind": "cuont"}, "'count', 'rate', 'recency', 'session_position'"),
        ({"windows": "7d"}, "Extra inputs are not permitted"),
    ],
)
def test_a_bad_spec_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python({"kind": "count", "by": ["user"], "event": "click", **change})


@pytest.mark.parametrize("spec", list(FEATURES.values()))
def test_a_spec_reads_what_it_writes(spec: Any) -> None:
    assert ADAPTER.validate_json(spec.model_dump_json()) == spec


def test_names_that_the_log_does_not_have_are_named() -> None:
    rows = frame(LOG)
    with pytest.raises(InputError, match="by 'brand', which is none of user, item, category"):
        look_up({"x": Count(by=("brand",), event="click")}, rows, rows)
    with pytest.raises(InputError, match="counts 'like', which is none of all, click, buy"):
        look_up({"x": Count(by=("user",), event="like")}, rows, rows)


def test_codes_with_too_many_values_to_combine_are_refused() -> None:
    keys = {"user": np.array([2]), "item": np.array([70_000]), "hour": np.array([3])}
    rows = Frame(keys, np.array([0]))
    with pytest.raises(
        InputError, match=r"codes of 'item' below 2\^16, not for 70000: put the name with the most values first"
    ):
        look_up({"x": Count(by=("user", "item", "hour"), event="all")}, rows, rows)
    assert look_up({"x": Count(by=("item", "user", "hour"), event="all")}, rows, rows)["x"].tolist() == [0]


def test_the_page_explains_every_key_and_its_examples_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    code = dict(re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL))
    specs = TypeAdapter(dict[str, PointInTime]).validate_python(yaml.safe_load(code["yaml"])["features"])
    assert {spec.kind for spec in specs.values()} == {"count", "rate", "recency", "session_position"}
    for spec in (Count, Rate, Recency, SessionPosition):
        for key in spec.model_fields:
            assert f"`{key}`" in page or key == "kind", key
    exec(code["python"], {})
