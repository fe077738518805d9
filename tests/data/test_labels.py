"""Labels against their definitions written out, by hand where a number says more."""

import math
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from recsys.data.labels import AtLeast, Histogram, LabelSpec, Quantile, Within, horizon_ms, value_columns
from recsys.data.sql import Name, Sql

NAN = float("nan")
Row = tuple[int, int, int, bool]  # user, item, time, is the event
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9), st.booleans()), max_size=25)
quick = settings(deadline=None, max_examples=60)


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32, "time_ms": pl.Int64, "value_t": pl.Float32}
    found = pl.DataFrame([(*row[:3], float(row[3])) for row in rows], schema=schema, orient="row").with_row_index("row")
    return found.with_columns(pl.lit(1, pl.Float32).alias("value_t_where")).sort("user", "time_ms", "row")


def labels(spec: Any, rows: pl.DataFrame, **more: Any) -> list[float | None]:
    """By `row`, None where the label does not exist."""
    found = spec(rows.lazy(), "t", **{"end_ms": 10**15, "fitted": None, **more}).collect()
    assert found.schema["label_t"] == pl.Float32
    assert found["label_t"].null_count() == 0
    assert found.drop("label_t").equals(rows)
    return found.sort("row")["label_t"].fill_nan(None).to_list()


@quick
@given(rows=ROWS, within=st.integers(1, 6), end_ms=st.integers(5, 12), per=st.sampled_from(["item", "user"]))
def test_within_looks_for_the_event_after_the_row_and_waits_for_the_window_to_close(
    rows: list[Row], within: int, end_ms: int, per: str
) -> None:
    expected: list[float | None] = []
    for row, (user, item, time, _) in enumerate(rows):
        follows = any(
            happens and u == user and (i == item or per == "user") and (time, row) < (t, r) and t <= time + within
            for r, (u, i, t, happens) in enumerate(rows)
        )
        expected.append(float(follows) if time + within <= end_ms else None)
    spec = Within.model_validate({"event": "e", "within": f"{within}ms", "per": per})
    assert labels(spec, frame(rows), end_ms=end_ms) == expected
    shards = [frame(rows).filter(pl.col("user") % 2 == shard) for shard in (0, 1)]
    divided = pl.concat([spec(shard.lazy(), "t", end_ms=end_ms) for shard in shards]).sort("row").collect()
    assert divided["label_t"].fill_nan(None).to_list() == expected


def test_within_labels_only_the_rows_it_is_asked_for() -> None:
    rows = frame([(0, 1, 0, False), (0, 1, 5, True), (0, 1, 6, False)])
    asked = rows.with_columns(pl.Series("value_t_where", [1, 0, NAN], dtype=pl.Float32))
    assert labels(Within(event="e", where="is_view", within="5ms"), asked) == [1.0, None, None]


def test_an_early_positive_is_unknown_while_its_window_is_open() -> None:
    rows = frame([(0, 1, 0, False), (0, 1, 5, True), (1, 1, 5, False), (1, 1, 6, True)])
    # The log ends at 6: the windows of user 1 are open, so their known positive must not be counted without its negatives.
    assert labels(Within(event="e", within="5ms"), rows, end_ms=6) == [1.0, None, None, None]


def test_under_a_split_by_time_a_training_label_knows_nothing_of_the_validation_window() -> None:
    rows = frame([(0, 1, 0, False), (0, 1, 8, False), (0, 1, 10, True), (0, 1, 14, False), (0, 1, 20, False)])
    spec = Within(event="e", within="4ms")
    assert labels(spec, rows, end_ms=24) == [0.0, 1.0, 0.0, 0.0, 0.0]
    # Validation starts at 10, the test at 16: the window of the row at 8 ends at 12, that of the row at 14 at 18.
    assert labels(spec, rows, end_ms=horizon_ms((10, 16), 24)) == [0.0, None, 0.0, None, 0.0]


def test_a_dwell_that_was_cut_short_can_be_long_enough_but_never_too_short() -> None:
    values = pl.DataFrame(
        {"row": range(7), "value_t": [31, 30, 29, 31, 29, NAN, 29], "value_t_censored": [0, 0, 0, 1, 1, 0, NAN]},
        schema_overrides={"value_t": pl.Float32, "value_t_censored": pl.Float32},
    )
    assert labels(AtLeast(value="d", threshold=30, censored="c"), values) == [1, 1, 0, 1, None, None, 0]
    assert labels(AtLeast(value="d", threshold=30), values) == [1, 1, 0, 1, 0, None, 0]


@given(value=st.floats(0, 1000, width=32))
def test_a_value_reaches_itself(value: float) -> None:
    rows = pl.DataFrame({"row": [0], "value_t": [value]}, schema_overrides={"value_t": pl.Float32})
    assert labels(AtLeast(value="d", threshold=value), rows) == [1.0]
    assert labels(AtLeast(value="d", threshold=0.1), rows.with_columns(pl.lit(0.1, pl.Float32).alias("value_t"))) == [1.0]


def watched(values: list[float], groups: list[float]) -> pl.DataFrame:
    return pl.DataFrame(
        {"row": range(len(values)), "value_t": values, "value_t_by": groups},
        schema_overrides={"value_t": pl.Float32, "value_t_by": pl.Float32},
    )


def test_a_quantile_is_the_rank_among_the_training_rows_of_its_group() -> None:
    train = watched([0, 0, 10, 40, 100, 200], [1, 1, 1, 1, 2, 2])
    spec = Quantile(value="w", by="g")
    fitted = Histogram.merge([spec.fit(train, "t")])
    # Group 1 of four: the zeros share the ranks 0 to .5, so .25; then .5 + .125 and .75 + .125. Group 2 of two: .25, .75.
    assert labels(spec, train, fitted=fitted) == [0.25, 0.25, 0.625, 0.875, 0.25, 0.75]
    new = watched([20, 1000, 0, -1, NAN, 5, 5], [1, 1, 2, 1, 1, 3, NAN])
    assert labels(spec, new, fitted=fitted) == [0.75, 1.0, 0.0, None, None, None, None]


def test_neighbouring_groups_stay_apart() -> None:
    train = watched([1, 2, 3, 4], [1, 1, *[float(np.nextafter(np.float32(1), np.float32(2)))] * 2])
    spec = Quantile(value="w", by="g")
    assert labels(spec, train, fitted=spec.fit(train, "t")) == [0.25, 0.75, 0.25, 0.75]


def test_without_groups_all_rows_are_one() -> None:
    train = watched([3, 1, 2, 4], [0, 0, 0, 0]).drop("value_t_by")
    spec = Quantile(value="w")
    assert labels(spec, train, fitted=spec.fit(train, "t")) == [0.625, 0.125, 0.375, 0.875]


WATCHED = st.lists(st.tuples(st.floats(0, 1e6, width=32), st.sampled_from([-1.5, 0.0, 0.5, 2.0])), min_size=1, max_size=60)


@quick
@given(rows=WATCHED, order=st.randoms(use_true_random=False), shards=st.integers(1, 5))
def test_the_histogram_is_the_same_however_rows_are_ordered_and_divided(
    rows: list[tuple[float, float]], order: Any, shards: int
) -> None:
    spec = Quantile(value="w", by="g")
    whole = spec.fit(watched(*map(list, zip(*rows, strict=True))), "t")
    shuffled = order.sample(rows, len(rows))
    parts = [shuffled[shard::shards] for shard in range(shards)]
    merged = Histogram.merge(spec.fit(watched([v for v, _ in part], [g for _, g in part]), "t") for part in parts)
    np.testing.assert_array_equal(merged.key_K, whole.key_K)
    np.testing.assert_array_equal(merged.count_K, whole.count_K)


@quick
@given(rows=WATCHED)
def test_quantiles_rise_with_the_value_and_average_to_one_half_in_a_group(rows: list[tuple[float, float]]) -> None:
    train = watched(*map(list, zip(*rows, strict=True)))
    spec = Quantile(value="w", by="g")
    found = train.with_columns(pl.Series("label", labels(spec, train, fitted=spec.fit(train, "t"))))
    for _, group in found.group_by("value_t_by"):
        assert group["label"].mean() == pytest.approx(0.5, abs=1e-5)
        assert group.sort("value_t", "label")["label"].is_sorted()


@given(value=st.floats(2.0**-90, 2.0**90, width=32))
def test_values_a_hundredth_apart_are_told_apart(value: float) -> None:
    more = float(np.float32(value * 1.01))
    low, high = Histogram.of(*np.float32([[value, more], [0, 0]])).ranks(*np.float32([[value, more], [0, 0]]))
    assert low < high


def test_specs_are_told_from_plain_sql_and_name_their_columns() -> None:
    found = TypeAdapter(dict[Name, Sql | LabelSpec]).validate_python(
        {
            "click": "click = 1",
            "buy": {"kind": "within", "event": "event = 'buy'", "within": "7d"},
            "stay": {"kind": "at_least", "value": "dwell", "threshold": 30, "censored": "last"},
            "watch": {"kind": "quantile", "value": "watch_s", "by": "FLOOR(duration_s / 10)"},
        }
    )
    assert value_columns(found) == {
        "value_buy": "event = 'buy'", "value_buy_where": "true", "value_stay": "dwell", "value_stay_censored": "last",
        "value_watch": "watch_s", "value_watch_by": "FLOOR(duration_s / 10)",
    }  # fmt: skip
    specs = [spec for spec in found.values() if not isinstance(spec, str)]
    assert {type(spec) for spec in specs} == set(get_args(get_args(LabelSpec)[0]))
    assert [(spec.causal, spec.is_binary, spec.is_fitted) for spec in specs] == [
        (False, True, False), (True, True, False), (False, False, True),
    ]  # fmt: skip


def test_two_tasks_cannot_share_a_column() -> None:
    buy = Within(event="b", within="1d")
    with pytest.raises(ValueError, match="labels 'buy' and 'buy_where' would both be read into value_buy_where: rename one"):
        value_columns({"buy": buy, "buy_where": AtLeast(value="x", threshold=1)})


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "within", "event": "e", "within": 7},
        {"kind": "within", "event": "e", "within": "0d"},
        {"kind": "within", "event": "e =", "within": "7d"},
        {"kind": "at_least", "value": "d", "threshold": math.inf},
        {"kind": "quantile"},
    ],
)
def test_a_label_that_makes_no_sense_fails_at_load(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(dict[Name, Sql | LabelSpec]).validate_python({"task": config})
