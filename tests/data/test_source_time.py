"""Times: every unit gives the same moment, and the unit is found or asked for, never guessed."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.moment import infer_time_unit, time_ms
from recsys.data.source import Events
from recsys.errors import InputError

T0 = 1_700_000_000  # 2023-11-14 22:13:20 UTC
PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def events(unit: str = "auto") -> Events:
    return Events(path="log.csv", user="u", item="i", time="t", time_unit=unit)  # type: ignore[arg-type]


def inferred(values: list[Any] | pl.Series) -> str:
    return infer_time_unit(pl.DataFrame({"t": values}), events())


def read(values: list[Any] | pl.Series, unit: str) -> list[int | None]:
    frame = pl.LazyFrame({"t": values})
    return frame.select(time_ms(str(events(unit).time), unit, frame)).collect().to_series().to_list()


@settings(deadline=None, max_examples=60)
@given(
    moments=st.lists(st.integers(31_536_000, 4_102_444_800), min_size=1, max_size=8),
    unit=st.sampled_from(list(PER_S)),
    kind=st.sampled_from([int, str, float]),
)
def test_the_unit_of_any_moments_of_these_years_is_found(moments: list[int], unit: str, kind: type) -> None:
    values = [kind(moment * PER_S[unit]) for moment in moments]
    assert inferred(values) == unit
    assert read(values, unit) == [moment * 1000 for moment in moments]


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["2023-11-14", " 2023-11-15 ", None], "date"),
        (["2023-11-14", "2023-11-14T22:13:20Z"], "iso"),
        (["2023-11-14 22:13"], "iso"),
        ([20231114, 20231115], "date"),
        (["20231114"], "date"),
        ([date(2023, 11, 14)], "date"),
        ([datetime(2023, 11, 14, tzinfo=UTC)], "iso"),
        ([T0, None, T0 + 1, 0, -1], "s"),
        ([T0 + 0.0, T0 + 0.5], "s"),
    ],
)
def test_the_unit_of_text_dates_and_odd_values(values: list[Any], unit: str) -> None:
    assert inferred(values) == unit


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([T0, T0 * 1000], ("holds both 1700000000, which is in s, and 1700000000000, which is in ms", "declare time_unit")),
        ([T0] * 99 + [T0 * 10**6], ("1700000000, which is in s", "1700000000000000, which is in us")),
        ([str(T0), "2023-11-14 22:13"], ("'1700000000', which is in s", "'2023-11-14 22:13', which is in iso")),
        ([1, 2, 3], ("holds 1, which is no moment in s, ms, us, ns, iso or date", "declare time_unit")),
        ([1, 2, T0], ("holds 1, which is no moment",)),
        (["soon"], ("holds 'soon', which is no moment",)),
        ([2023_13_45], ("holds 20231345, which is no moment",)),
        (pl.Series([], dtype=pl.Int64), ("holds no value",)),
        ([True], ("gives Boolean, not a moment",)),
    ],
)
def test_what_has_no_single_unit_is_asked_for(values: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        inferred(values)
    for word in ("time = 't'", *words):
        assert word in str(caught.value), caught.value


def test_a_declared_unit_is_taken_at_its_word() -> None:
    for unit in ("s", "ms", "us", "ns", "iso", "date", "order"):
        assert infer_time_unit(pl.DataFrame({"t": [1]}), events(unit)) == unit
    assert infer_time_unit(pl.DataFrame({"t": [1]}), Events(path="x", user="u", item="i", time_unit="auto")) == "order"


def test_days_are_midnights() -> None:
    for values in (["2023-11-14", "14/11/2023"], [20231114, 1], [20231114.0, None], [date(2023, 11, 14), None]):
        assert read(values, "date") == [1_699_920_000_000, None]


def test_whole_numbers_finer_than_a_millisecond_fall_into_one() -> None:
    for kind in (int, str):
        assert read([kind(T0 * 10**9 + 1_999_999), kind(T0 * 10**9 + 2_000_000)], "ns") == [T0 * 1000 + 1, T0 * 1000 + 2]
        assert read([kind(T0 * 10**6 + 1999)], "us") == [T0 * 1000 + 1]
    assert read([T0 + 0.123], "s") == [T0 * 1000 + 123]


def test_numbers_too_large_do_not_come_round_to_a_good_time() -> None:
    (found,) = read([2**61 + T0], "s")  # times 1000 in 64 bits: T0 * 1000
    assert found is None or found > 4_102_444_800_000


def test_orders_of_any_size_stay_in_order() -> None:
    assert read([2**60 + 1, 2**60, -5], "order") == [2**60 + 1, 2**60, -5]
