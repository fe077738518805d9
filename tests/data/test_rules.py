"""Which rows are bad and why, which repeat another, and that no row is lost between the two."""

from typing import Any

import polars as pl
import pytest
from dataframely.exc import SchemaError
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recsys.data.rules import duplicates, event_schema, split_bad

NOW = 1_700_000_000_000
DAY = 24 * 3600 * 1000
NAN = float("nan")
GOOD: dict[str, Any] = {
    "row": 0, "user_id": "u", "item_id": "i", "time_ms": NOW, "in_history": True, "slot": -1, "propensity": NAN, "weight": 1.0,
    "label_click": 1.0, "label_buy": NAN, "context_device": None, "value_price": 3.5, "_unreadable": None,
}  # fmt: skip
TYPES: dict[str, Any] = {
    "row": pl.Int64, "user_id": pl.String, "item_id": pl.String, "time_ms": pl.Int64, "in_history": pl.Boolean,
    "slot": pl.Int32, "propensity": pl.Float32, "weight": pl.Float32, "label_click": pl.Float32, "label_buy": pl.Float32,
    "context_device": pl.String, "value_price": pl.Float32, "_unreadable": pl.String,
}  # fmt: skip
NAMES: dict[str, Any] = {"labels": ["click", "buy"], "contexts": ["device"], "values": ["price"]}


def chunk(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([GOOD | {"row": place} | row for place, row in enumerate(rows)], TYPES)


def judge(row: dict[str, Any], *, has_time: bool = True, now_ms: int | None = NOW) -> tuple[str, str] | None:
    """Rule and reason of a good row that was changed."""
    good, bad = split_bad(chunk({}, row, {}), **NAMES, has_time=has_time, now_ms=now_ms)
    assert good["row"].to_list() == ([0, 2] if len(bad) else [0, 1, 2])
    return bad.select("rule", "reason").row(0) if len(bad) else None


@pytest.mark.parametrize(
    ("row", "rule", "reason"),
    [
        ({"_unreadable": "row has more than 3 fields", "user_id": None}, "unreadable", "row has more than 3 fields"),
        ({"user_id": None, "time_ms": None}, "user_id_empty", "user id is empty"),
        ({"item_id": None}, "item_id_empty", "item id is empty"),
        ({"user_id": "caf\ufffd"}, "user_id_not_utf8", "user id is not UTF-8: is encoding right?"),
        ({"item_id": "\ufffd"}, "item_id_not_utf8", "item id is not UTF-8: is encoding right?"),
        ({"time_ms": None}, "time_unreadable", "time is empty or unreadable"),
        ({"time_ms": NOW // 1000}, "time_before_1971", "time is before 1971 or after 2100: is time_unit right?"),
        ({"time_ms": NOW * 1000}, "time_after_2100", "time is before 1971 or after 2100: is time_unit right?"),
        ({"time_ms": NOW + DAY + 1}, "time_in_future", "time is more than a day after this run"),
        ({"propensity": 1.5}, "propensity_outside_0_1", "propensity is outside [0, 1]"),
        ({"propensity": -0.5, "weight": -1.0}, "propensity_outside_0_1", "propensity is outside [0, 1]"),
        ({"weight": -1.0}, "weight_negative", "weight is negative or not a finite number"),
        ({"weight": NAN}, "weight_negative", "weight is negative"),
        ({"label_click": 0.5, "label_buy": 2.0}, "label_not_binary", "label_click is not 0, 1 or null"),
        ({"label_buy": float("inf")}, "label_not_binary", "label_buy is not 0, 1 or null"),
        ({"value_price": -float("inf")}, "value_infinite", "value_price is infinite"),
    ],
)
def test_the_first_broken_rule_is_named(row: dict[str, Any], rule: str, reason: str) -> None:
    found = judge(row)
    assert found is not None
    assert found[0] == rule
    assert found[1].startswith(reason)


@pytest.mark.parametrize(
    "row",
    [{}, {"time_ms": NOW + DAY}, {"propensity": 0.0}, {"propensity": 1.0}, {"weight": 0.0}, {"label_click": NAN},
     {"value_price": NAN}, {"slot": 3, "context_device": "web"}],
)  # fmt: skip
def test_good_rows_stay(row: dict[str, Any]) -> None:
    assert judge(row) is None


def test_times_without_a_calendar_and_without_a_clock() -> None:
    assert judge({"time_ms": 7}, has_time=False) is None
    assert judge({"time_ms": None}, has_time=False) == ("time_unreadable", "time is empty or unreadable")
    assert judge({"time_ms": NOW + 9 * DAY}, now_ms=None) is None


def test_a_chunk_that_breaks_the_contract_raises() -> None:
    with pytest.raises(SchemaError, match="weight"):
        split_bad(chunk({}).drop("weight"), **NAMES, has_time=True)
    with pytest.raises(SchemaError, match="slot"):
        split_bad(chunk({}).with_columns(pl.col("slot").cast(pl.Int64)), **NAMES, has_time=True)
    with pytest.raises(AssertionError, match=r"label_click\|nullability"):
        split_bad(chunk({"label_click": None}), **NAMES, has_time=True)


def test_the_schema_names_its_columns() -> None:
    assert set(event_schema(["click", "buy"], ["device"], ["price"], True).column_names()) == set(TYPES)


FIELDS = {
    "user_id": st.sampled_from(["u", "v", None, "\ufffd"]), "item_id": st.sampled_from(["i", None]),
    "time_ms": st.sampled_from([NOW, 0, None, NOW * 99]), "weight": st.sampled_from([1.0, -1.0]),
    "label_click": st.sampled_from([0.0, 1.0, NAN, 2.0]), "_unreadable": st.sampled_from([None, None, "torn"]),
}  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries(FIELDS), max_size=12), st.booleans())
def test_good_and_bad_rows_partition_the_chunk(rows: list[dict[str, Any]], has_time: bool) -> None:
    frame = chunk(*rows) if rows else pl.DataFrame(schema=TYPES)
    good, bad = split_bad(frame, **NAMES, has_time=has_time)
    assert set(bad.columns) - set(good.columns) == {"rule", "reason"}
    assert bad.select("rule", "reason").null_count().row(0) == (0, 0)
    together = pl.concat([good, bad.drop("rule", "reason")]).sort("row")
    assert_frame_equal(together, frame.drop("_unreadable"), check_column_order=False)
    assert split_bad(good.with_columns(_unreadable=pl.lit(None, pl.String)), **NAMES, has_time=has_time)[1].is_empty()


def shard(rows: list[tuple[int, int, int, float]]) -> pl.LazyFrame:
    """Rows of (user, time, item, label), in order of arrival."""
    frame = pl.DataFrame(
        rows, {"user": pl.Int32, "time_ms": pl.Int64, "item": pl.Int32, "label_click": pl.Float32}, orient="row"
    )
    frame = frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64), (pl.col("row") % 2).alias("arrival"))
    return frame.sort("user", "time_ms", "row").lazy()


ROWS = [(2, 5, 7, 1.0), (2, 5, 8, NAN), (2, 5, 7, 0.0), (2, 5, 8, NAN), (2, 5, 7, 1.0), (2, 6, 7, 1.0), (3, 5, 7, 1.0)]


@pytest.mark.parametrize(
    ("conflicts", "marked"), [("keep", []), ("first", [2]), ("last", [0]), ("quarantine", [0, 2])]
)  # fmt: skip
def test_duplicates(conflicts: Any, marked: list[int]) -> None:
    """Rows 3 and 4 repeat rows 1 and 0; rows 0 and 2 disagree about the label."""
    found = duplicates(shard(ROWS), conflicts=conflicts).collect()
    assert_frame_equal(found.drop("rule", "conflict"), shard(ROWS).collect())
    assert sorted(found.filter(rule="exact_duplicate")["row"]) == [3, 4]
    assert sorted(found.filter(rule="conflicting_duplicate")["row"]) == marked
    assert sorted(found.filter("conflict")["row"]) == [0, 2]


small = st.integers(2, 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(small, small, small, st.sampled_from([0.0, -0.0, 1.0, NAN])), max_size=14))
def test_duplicates_agree_with_a_plain_loop(rows: list[tuple[int, int, int, float]]) -> None:
    found = duplicates(shard(rows), conflicts="last").collect().sort("row")
    texts = [(*row[:3], "nan" if row[3] != row[3] else row[3] + 0.0) for row in rows]
    exact = [row in texts[:place] for place, row in enumerate(texts)]
    versions = {row[:3]: {other for other in texts if other[:3] == row[:3]} for row in texts}
    conflict = [not exact[place] and len(versions[row[:3]]) > 1 for place, row in enumerate(texts)]
    newest = {row[:3]: place for place, row in enumerate(texts) if not exact[place]}
    expected = [
        "exact_duplicate" if exact[place]
        else "conflicting_duplicate" if conflict[place] and newest[row[:3]] != place
        else None
        for place, row in enumerate(texts)
    ]  # fmt: skip
    assert found["rule"].to_list() == expected
    assert found["conflict"].to_list() == conflict
