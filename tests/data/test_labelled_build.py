"""Labels, weights, steps, splits and slowly changing tables through a whole build, on logs worked out by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.columns import FIRST_ID
from recsys.data import Data
from recsys.data.build import build
from recsys.dataset import Dataset
from recsys.errors import InputError

T0 = 1_700_006_400  # 2023-11-15 00:00:00 UTC
MINUTE = 60
EVENTS = {"path": "log.csv", "user": "u", "item": "i", "time": "t", "columns": {"t": "int"}}
LEAVE_ONE_OUT = {"kind": "leave_one_out"}
NAN = float("nan")
Write, Prepare, Examples = Callable[..., Path], Callable[..., Dataset], Callable[[Dataset], pl.DataFrame]


def log(header: str, *rows: str) -> str:
    """Rows are user, item, minute and what the header names further."""
    lines = [f"u,i,t{header}"]
    for row in rows:
        user, item, minute, *rest = row.split()
        lines.append(",".join([user, item, str(T0 + int(minute) * MINUTE), *[value.replace("-", "") for value in rest]]))
    return "\n".join(lines) + "\n"


def at(hours: float) -> str:
    return f"2023-11-15T{int(hours):02d}:{int(hours % 1 * 60):02d}:00Z"


def told(rows: pl.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    """User, item, minute and columns."""
    minute = (pl.col("time_ms") - T0 * 1000) // 60_000
    return rows.select("user", "item", minute, *columns).sort("time_ms", "user", "item").rows()


FUNNEL = log(
    ",e", "a x 0 view", "a x 30 buy", "a y 40 view", "a y 100 view", "a y 120 buy", "b x 150 view", "b x 200 buy",
    "b z 250 view", "a z 300 view", "a z 400 view",
)  # fmt: skip
BY_HOURS = {"kind": "time", "valid_from": at(2.5), "test_from": at(5)}  # minutes 150 and 300


@pytest.mark.parametrize(
    ("per", "steps", "expected"),
    [
        # 100: a purchase follows at 120, but the window ends at 160, after validation began. 250: the same with the test.
        # 400: the log ends. The purchases themselves are no examples.
        ("item", [], [1, NAN, 0, NAN, NAN, 1, NAN, NAN, 0, NAN]),
        ("user", [], [1, NAN, 0, NAN, NAN, 1, NAN, NAN, 0, NAN]),
        # The purchase that makes the first view a success is a repeat, and goes after it was read.
        ("item", [{"kind": "first_touch"}], [1, 0, 1, NAN, 0]),
    ],
)
def test_labels_that_come_later(
    write: Write, prepare: Prepare, examples_of: Examples, per: str, steps: list[Any], expected: list[float]
) -> None:
    write("log.csv", FUNNEL)
    bought = {"kind": "within", "event": "e = 'buy'", "within": "1h", "per": per, "where": "e = 'view'"}
    events = EVENTS | {"labels": {"bought": bought, "seen": "1"}}
    data = prepare(events, split=BY_HOURS, steps=steps)
    rows = examples_of(data).sort("time_ms")
    np.testing.assert_array_equal(rows["label_bought"], expected)
    minutes = [0, 40, 150, 250, 300] if steps else [0, 30, 40, 100, 120, 150, 200, 250, 300, 400]
    assert [row[2] for row in told(rows)] == minutes
    known = [value for value in expected if value == value]
    assert data.manifest["report"]["tasks"]["bought"] == {"labelled": len(known), "mean": sum(known) / len(known)}


def test_a_purchase_of_another_item_counts_per_user(write: Write, prepare: Prepare, examples_of: Examples) -> None:
    write("log.csv", log(",e", "a x 0 view", "a y 30 buy", "a x 200 view", "b x 10 buy", "b y 400 view"))
    labels = {
        per: {"kind": "within", "event": "e = 'buy'", "within": "1h", "per": per, "where": "e = 'view'"}
        for per in ("item", "user")
    }
    split = {"kind": "time", "valid_from": at(3), "test_from": at(6)}
    rows = examples_of(prepare(EVENTS | {"labels": labels}, split=split)).sort("time_ms")
    assert told(rows, "label_item", "label_user")[:1] == [("a", "x", 0, 0.0, 1.0)]


def test_dwell_that_was_cut_off_shows_only_what_it_reached(write: Write, prepare: Prepare, examples_of: Examples) -> None:
    write("log.csv", log(",dwell,cut", "a v 0 40 0", "a w 1 10 0", "a x 2 10 1", "a y 3 50 1", "a z 4 - 0", "a z 5 30 -"))
    stayed = {"kind": "at_least", "value": "dwell", "threshold": 30, "censored": "cut"}
    data = prepare(
        EVENTS | {"columns": {"t": "int", "dwell": "float", "cut": "int"}, "labels": {"stayed": stayed, "seen": "1"}},
        split=LEAVE_ONE_OUT,
    )
    np.testing.assert_array_equal(examples_of(data)["label_stayed"], [1, 0, NAN, 1, NAN, 1])
    assert (data.tasks, data.manifest["targets"]) == (["stayed", "seen"], [])


def test_watch_time_is_ranked_among_training_rows_alike(write: Write, prepare: Prepare, examples_of: Examples) -> None:
    # Of short videos (1), training rows watched 1, 2, 3, 4 seconds; of long ones (2), 10 and 10. Kind 3 has no training row.
    rows = ["a p 0 4 1", "a q 1 1 1", "b p 2 3 1", "b q 3 2 1", "a r 4 10 2", "b r 5 10 2"]
    held_out = ["a s 60 2 1", "a t 61 9 1", "b s 62 10 2", "b t 120 5 3", "a u 121 - 1", "b u 122 3 -"]
    write("log.csv", log(",watched,length", *rows, *held_out))
    rank = {"kind": "quantile", "value": "watched", "by": "length"}
    data = prepare(
        EVENTS | {"columns": {"t": "int", "watched": "float", "length": "int"}, "labels": {"rank": rank}},
        split={"kind": "time", "valid_from": at(1), "test_from": at(2)},
    )
    found = examples_of(data).sort("time_ms")
    assert found["label_rank"].to_list() == [3.5 / 4, 0.5 / 4, 2.5 / 4, 1.5 / 4, 0.5, 0.5, 1.5 / 4, 1.0, 0.5]
    assert told(found)[-1] == ("b", "s", 62)  # rows without any label are no examples
    assert (data.tasks, data.manifest["targets"]) == ([], ["rank"])


def test_weights_slots_and_propensities_reach_the_examples(write: Write, prepare: Prepare, examples_of: Examples) -> None:
    write("log.csv", log(",e,slot,p", "a x 0 buy 3 0.5", "a y 1 view - -", "a z 2 view 0 1"))
    data = prepare(
        EVENTS | {
            "columns": {"t": "int", "slot": "int", "p": "float"}, "labels": {"seen": "1"}, "slot": "slot", "propensity": "p",
            "weight": "CASE e WHEN 'buy' THEN 5 ELSE 0.5 END",
        },
        split=LEAVE_ONE_OUT,
    )  # fmt: skip
    rows = examples_of(data)
    assert rows["weight"].to_list() == [5.0, 0.5, 0.5]
    assert rows["slot"].to_list() == [3, -1, 0]
    np.testing.assert_array_equal(rows["propensity"], np.float32([0.5, NAN, 1]))


STEPS: list[tuple[list[dict[str, Any]], dict[str, list[str]], int]] = [
    ([{"kind": "first_touch"}], {"a": ["x", "y", "z"], "b": ["p", "q", "r", "s"], "c": ["x", "y", "z"]}, 2),
    ([{"kind": "last_touch"}], {"a": ["y", "x", "z"], "b": ["p", "q", "r", "s"], "c": ["y", "z", "x"]}, 2),
    # b's q at 21 comes less than 5 minutes after p, its r at 22 too: they go, and s at 40 is in time again.
    ([{"kind": "burst", "max_events": 1, "within": "5m"}],
     {"a": ["x", "y", "x", "z"], "b": ["p", "s"], "c": ["x", "y", "z", "x"]}, 2),
    ([{"kind": "bots", "max_events_per_item": 1}], {"b": ["p", "q", "r", "s"]}, 9),
    ([{"kind": "bots", "max_events_per_day": 3}], {"c": ["x", "y", "z", "x"]}, 9),
    ([{"kind": "first_touch"}, {"kind": "bots", "max_events_per_day": 3}],
     {"a": ["x", "y", "z"], "c": ["x", "y", "z"]}, 6),
]  # fmt: skip
CLICKS = log(
    ",click", "a x 0 1", "a y 10 1", "a x 20 1", "a x 25 0", "a z 30 1", "b p 20 1", "b q 21 1", "b r 22 1", "b s 40 1",
    "c x 0 1", "c y 1500 1", "c z 3000 1", "c x 4500 1",
)  # fmt: skip


@pytest.mark.parametrize(("steps", "expected", "dropped"), STEPS)
def test_steps(
    write: Write, prepare: Prepare, examples_of: Examples, steps: list[Any], expected: dict[str, list[str]], dropped: int
) -> None:
    write("log.csv", CLICKS)
    events = EVENTS | {"columns": {"t": "int", "click": "int"}, "history": "click = 1", "labels": {"click": "click"}}
    data = prepare(events, split=LEAVE_ONE_OUT, steps=steps, filters={"max_drop_share": 1})
    found = {name: [] for name in data.user_ids[FIRST_ID:]}
    for user, name in enumerate(data.user_ids[FIRST_ID:], FIRST_ID):
        found[name] = [data.item_ids[item] for item in data.timelines.slice(user, user + 1).item_E]
    assert found == expected
    assert data.manifest["report"]["rows_dropped_by_steps"] == dropped
    shown = examples_of(data).filter(label_click=0)
    assert shown["user"].to_list() == (["a"] if "a" in expected else [])  # the impression stays, unless its user goes


def test_sessions_are_timelines_of_their_own(write: Write, prepare: Prepare, examples_of: Examples) -> None:
    # Gaps of a: 10, 30 (still the same session), 31 minutes. An impression keeps b's session open.
    rows = ["a x 0 1", "a y 10 1", "a z 40 1", "a x 71 1", "a z 80 1", "b x 5 1", "b y 30 0", "b z 55 1", "b y 300 1"]
    write("log.csv", log(",click", *rows))
    events = EVENTS | {"columns": {"t": "int", "click": "int"}, "history": "click = 1", "labels": {"click": "click"}}
    features = {
        "seen": {"kind": "count", "by": ["user"], "event": "all", "log1p": False},
        "shown": {"kind": "count", "by": ["item"], "event": "all", "log1p": False},
    }
    data = prepare(events, split=LEAVE_ONE_OUT, steps=[{"kind": "sessions"}], features=features)
    assert data.user_ids[FIRST_ID:] == ["a#1", "a#2", "b#1", "b#2"]
    assert data.length_U[FIRST_ID:].tolist() == [3, 2, 2, 1]
    found = examples_of(data)
    assert told(found.sort("user", "time_ms"), "position", "feature_seen", "feature_shown") == [
        ("a#1", "x", 0, 0, 0, 0), ("b#1", "x", 5, 0, 0, 1), ("a#1", "y", 10, 1, 1, 0), ("b#1", "y", 30, 1, 1, 1),
        ("a#1", "z", 40, 2, 2, 0), ("b#1", "z", 55, 1, 2, 1), ("a#2", "x", 71, 0, 0, 2), ("a#2", "z", 80, 1, 1, 2),
        ("b#2", "y", 300, 0, 0, 2),
    ]  # fmt: skip
    long = prepare(events, split=LEAVE_ONE_OUT, steps=[{"kind": "sessions", "min_events": 2}])
    assert long.user_ids[FIRST_ID:] == ["a#1", "a#2", "b#1"]
    assert long.manifest["report"]["rows_dropped_by_steps"] == 1


def test_a_session_has_the_features_of_its_user(write: Write, prepare: Prepare) -> None:
    write("log.csv", log("", "a x 0", "a y 10", "a z 20", "a x 100", "b x 5"))
    write("users.csv", "u,town\na,Rome\nb,Oslo\n")
    users = {"path": "users.csv", "id": "u", "features": {"town": "town"}}
    data = prepare(EVENTS, users=users, split=LEAVE_ONE_OUT, steps=[{"kind": "sessions"}])
    assert data.user_ids[FIRST_ID:] == ["a#1", "a#2", "b#1"]
    towns = [None, None, *data.vocabulary("user", "town")]
    assert [towns[code] for code in data.codes("town", "user").item_E[FIRST_ID:]] == ["Rome", "Rome", "Oslo"]
    assert data.manifest["report"]["user_table"]["ids_of_events_without_row"] == 0


def test_sessions_of_days_that_arrive_one_by_one(write: Write, prepare: Prepare) -> None:
    rows = ["a x 0", "a y 10", "a z 20", "b x 5", "c y 7", "d z 9", "a x 100", "a z 101"]
    write("log/1.csv", log("", *rows[:6]))
    write("log/2.csv", log("", *rows[6:]))
    steps = [{"kind": "sessions", "min_events": 2}]
    data = prepare(EVENTS | {"path": "log", "arrives": "by_file"}, split=LEAVE_ONE_OUT, steps=steps)
    assert data.user_ids[FIRST_ID:] == ["a#1", "a#2"]


def test_steps_that_leave_nothing_say_so(write: Write, prepare: Prepare) -> None:
    write("log.csv", log("", "a x 0", "a y 1"))
    with pytest.raises(InputError, match="steps"):
        prepare(EVENTS, split=LEAVE_ONE_OUT, steps=[{"kind": "bots", "max_events_per_day": 1}])


def test_a_random_split_holds_a_share_of_every_user_out(write: Write, prepare: Prepare, examples_of: Examples) -> None:
    sizes = {"a": 20, "b": 9, "c": 3, "d": 2}
    rows = [f"{user} {user}{n:02d} {n}" for user, size in sizes.items() for n in range(size)]
    split = {"kind": "random", "valid_share": 0.2, "test_share": 0.1, "seed": 5}
    write("log.csv", log("", *rows))
    data = prepare(EVENTS | {"labels": {"seen": "1"}}, split=split)
    counts = np.stack([data.train_length_U, data.valid_length_U, data.length_U], axis=1)[FIRST_ID:].tolist()
    assert counts == [[14, 4, 20], [7, 1, 9], [1, 1, 3], [2, 0, 2]]  # floors of the shares, at least one
    found = examples_of(data)
    parts = {}
    for user, of_user in found.group_by("user", maintain_order=True):
        assert of_user["split"].is_sorted()
        for _, part in of_user.group_by("split"):
            assert part["time_ms"].is_sorted()
        assert of_user["position"].to_list() == list(range(len(of_user)))
        parts[user] = of_user["item"].to_list()
    assert parts["a",] != sorted(parts["a",])  # what is held out moved to the end
    write("log.csv", log("", *reversed(rows), "e e00 0"))
    again = examples_of(prepare(EVENTS | {"labels": {"seen": "1"}}, split=split))
    assert told(again, "split")[:-1] != []
    assert set(told(found, "split")) < set(told(again, "split"))  # neither order nor other users change a lot
    other = examples_of(prepare(EVENTS | {"labels": {"seen": "1"}}, split=split | {"seed": 6}))
    assert set(told(found, "split")) - set(told(other, "split"))


def test_files_say_their_split(write: Write, prepare: Prepare, examples_of: Examples) -> None:
    write("log/train/1.csv", log("", "a x 0", "a y 90", "b x 1"))
    write("log/train/2.csv", log("", "a z 5", "c z 6"))
    write("log/valid/1.csv", log("", "a p 3", "b q 2"))
    write("log/test/1.csv", log("", "a q 4", "d x 7"))
    split = {"kind": "files", "valid": "log/valid/*", "test": "*/test/*"}
    data = prepare(EVENTS | {"path": "log", "labels": {"seen": "1"}}, split=split, shards=3)
    found = examples_of(data).sort("user", "split", "time_ms")
    assert found.select("user", "item", "split", "history").rows() == [
        ("a", "x", 0, []), ("a", "z", 0, ["x"]), ("a", "y", 0, ["x", "z"]), ("a", "p", 1, ["x", "z", "y"]),
        ("a", "q", 2, ["x", "z", "y", "p"]), ("b", "x", 0, []), ("b", "q", 1, ["x"]), ("c", "z", 0, []), ("d", "x", 2, []),
    ]  # fmt: skip
    assert data.manifest["report"]["timeline_by_split"] == {"train": 5, "valid": 2, "test": 2}
    with pytest.raises(InputError, match=r"split.test 'tests/\*' matches none of 4 files"):
        prepare(EVENTS | {"path": "log"}, split=split | {"test": "tests/*"})


PRICES = "i,price,day,told\nx,low,0,0\nx,mid,60,90\nx,high,120,\ny,low,60,60\n"


def test_an_example_has_the_values_known_at_its_time(write: Write, prepare: Prepare, examples_of: Examples) -> None:
    # x's price is mid from minute 60 on, which is known at 90 only; y has none before minute 60; z is in no table.
    rows = ["a x 0", "a x 60", "a x 89", "a x 90", "a x 120", "b y 59", "b y 60", "b z 70", "b x 300"]
    write("log.csv", log("", *rows))
    lines = [line.split(",") for line in PRICES.splitlines()]
    moments = [[i, price, T0 + int(day) * MINUTE, T0 + int(told) * MINUTE if told else ""] for i, price, day, told in lines[1:]]
    write("prices.csv", "\n".join(["i,price,day,told", *[",".join(map(str, row)) for row in moments]]))
    items = {"path": "prices.csv", "id": "i", "features": {"price": "price"}, "event_time": "day", "created": "told"}
    features = {"at_price": {"kind": "count", "by": ["price"], "event": "all", "log1p": False}}
    data = prepare(EVENTS | {"labels": {"seen": "1"}}, items=items, split=LEAVE_ONE_OUT, features=features)
    prices = [None, "?", *data.vocabulary("item", "price")]
    found = examples_of(data).with_columns(pl.Series("price", [prices[code] for code in data.examples["asof_price"]]))
    assert told(found, "price", "feature_at_price") == [
        ("a", "x", 0, "low", 0), ("b", "y", 59, "?", 0), ("a", "x", 60, "low", 1), ("b", "y", 60, "low", 1),
        ("b", "z", 70, "?", 1), ("a", "x", 89, "low", 3), ("a", "x", 90, "mid", 0), ("a", "x", 120, "high", 0),
        ("b", "x", 300, "high", 1),
    ]  # fmt: skip
    newest = data.codes("price", "item").item_E
    assert [prices[code] for code in newest[FIRST_ID:]] == ["high", "low", "?"]
    assert data.asof == ["price"]


def test_users_and_items_that_training_has_not_seen(write: Write, prepare: Prepare) -> None:
    write("log.csv", log("", "a x 0", "a y 10", "a x 70", "b z 75", "b x 130", "c y 20", "c new 140"))
    data = prepare(EVENTS, split={"kind": "time", "valid_from": at(1), "test_from": at(2)})
    assert [data.user_ids[user] for user in np.flatnonzero(data.cold_users)] == ["b"]
    assert [data.item_ids[item] for item in np.flatnonzero(data.cold_items)] == ["new", "z"]
    assert data.train_count_I[FIRST_ID:].tolist() == [0, 1, 2, 0]
    assert (data.user_ids, data.item_ids) == ([None, None, "a", "b", "c"], [None, None, "new", "x", "y", "z"])


def test_a_user_of_200_000_events(raw: Path, tmp_path: Path) -> None:
    rows = 200_000
    step = np.arange(rows)
    frame = {"u": "one", "i": step * 7919 % 50_000, "t": T0 + step, "watched": (step % 100).astype(float)}
    pl.concat([pl.DataFrame(frame), pl.DataFrame(frame)[:3].with_columns(u=pl.lit("two"))]).write_parquet(raw / "log.parquet")
    data = Data.model_validate({
        "events": {
            "path": "log.parquet", "user": "u", "item": "i", "time": "t",
            "labels": {"again": {"kind": "within", "event": "true", "within": "1m", "per": "item"}, "watched": {
                "kind": "quantile", "value": "watched"}},
        },
        "split": {"kind": "time"}, "steps": [{"kind": "burst", "max_events": 1000, "within": "1m"}],
        "features": {"seen": {"kind": "count", "by": ["user"], "event": "all", "window": "1h", "log1p": False}}, "shards": 4,
    })  # fmt: skip
    build(data, raw, tmp_path / "dataset")
    found = Dataset(tmp_path / "dataset")
    assert found.length_U.tolist() == [0, 0, rows, 3]
    of_one = np.flatnonzero(found.examples["user"] == FIRST_ID)
    assert np.array_equal(np.asarray(found.examples["position"])[of_one], step)
    assert np.array_equal(np.asarray(found.examples["feature_seen"])[of_one], np.minimum(step, 3600))
    assert found.train_length_U.tolist()[FIRST_ID:] == [159_999, 3]  # the cut is the 160,002nd of 200,003 events, from 0


def test_a_list_is_no_key_of_a_feature(write: Write, prepare: Prepare) -> None:
    write("log.csv", log("", "a x 0", "a y 10", "a z 20"))
    write("items.csv", "i,tags\nx,p|q\ny,q\n")
    items = {"path": "items.csv", "id": "i", "features": {"tags": "STRING_TO_ARRAY(tags, '|')"}}
    features = {"of_tag": {"kind": "count", "by": ["tags"], "event": "all"}}
    with pytest.raises(InputError, match="features: by 'tags' holds lists, and a key needs one value: name another feature"):
        prepare(EVENTS, items=items, split=LEAVE_ONE_OUT, features=features)


def test_a_slowly_changing_list_is_refused(write: Write, prepare: Prepare) -> None:
    write("log.csv", log("", "a x 0", "a y 10", "a z 20"))
    write("items.csv", f"i,tags,day\nx,p|q,{T0}\ny,q,{T0}\n")
    items = {"path": "items.csv", "id": "i", "features": {"tags": "STRING_TO_ARRAY(tags, '|')"}, "event_time": "day"}
    with pytest.raises(InputError, match="tags"):
        prepare(EVENTS, items=items, split=LEAVE_ONE_OUT)
