"""Splits against their definitions written out; what holds for all of them; exact quantiles over parts."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from recsys.data.splits import GivenFiles, GlobalTime, LeaveOneOut, RandomPerUser, Split
from recsys.data.splits.order_statistics import extent, order_statistics
from recsys.data.splits.random import _by_lot
from recsys.errors import InputError

DAY = 86_400_000
Row = tuple[int, int, bool]  # user, time, in_history
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans()), max_size=30)
SPLITS = [GlobalTime(), LeaveOneOut(), RandomPerUser(valid_share=0.3, test_share=0.3), GivenFiles(valid="v", test="t")]
TIES = st.sampled_from(["file_order", "simultaneous"])
quick = settings(deadline=None, max_examples=60)


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "time_ms": pl.Int64, "in_history": pl.Boolean}
    hashes = [hash((row, *of)) % 2**64 for row, of in enumerate(rows)]  # of whole numbers: the same in every process
    return (
        pl.DataFrame(rows, schema=schema, orient="row")
        .with_row_index("row")
        .with_columns(
            pl.Series("row_hash", hashes, dtype=pl.UInt64),
            (pl.col("time_ms") * 7 % 3).cast(pl.Int8).alias("given_split"),
        )
        .sort("user", "time_ms", "row")
    )


def apply(split: Any, rows: pl.DataFrame, ties: str = "file_order") -> pl.DataFrame:
    found = split(rows.lazy(), cuts_ms=(2, 4), ties=ties).collect()
    assert found.schema["split"] == pl.Int8
    assert found.drop("split").sort("user", "time_ms", "row").equals(rows)
    return found


@quick
@given(rows=ROWS, ties=TIES)
def test_leave_one_out_holds_out_the_last_two(rows: list[Row], ties: str) -> None:
    found = apply(LeaveOneOut(), frame(rows), ties)
    for _, user in found.group_by("user"):
        splits = user.filter("in_history")["split"].to_list()
        assert splits == ([0] * len(splits) if len(splits) < 3 else [0] * (len(splits) - 2) + [1, 2])


@pytest.mark.parametrize(("ties", "expected"), [("file_order", [0, 1, 1, 2]), ("simultaneous", [0, 0, 1, 2])])
def test_leave_one_out_follows_what_a_row_may_see(ties: str, expected: list[int]) -> None:
    page = [
        (0, 2, True),
        (0, 2, False),
        (0, 2, True),
        (0, 9, True),
    ]  # the impression sees the click before it, or none of its page
    assert apply(LeaveOneOut(), frame(page), ties)["split"].to_list() == expected


@quick
@given(rows=ROWS)
def test_global_time_cuts_all_users_at_the_same_moments(rows: list[Row]) -> None:
    for time, part in apply(GlobalTime(), frame(rows)).select("time_ms", "split").iter_rows():
        assert part == (0 if time < 2 else 1 if time < 4 else 2)


def parts_of(times: list[int], count: int = 3) -> Any:
    def parts() -> Iterator[np.ndarray]:
        yield from (np.array(times[part::count], np.int64) for part in range(count))

    return parts


def test_global_time_by_shares_cuts_at_quantiles_of_the_timeline() -> None:
    # 20 timeline events at 0, 2, ..., 38: quantile .7 is place 13.3, upwards 28; quantile .9 is place 17.1, upwards 36.
    assert GlobalTime(valid_share=0.2, test_share=0.1).cuts(parts_of(list(range(0, 40, 2)))) == (28, 36)


@quick
@given(
    times=st.lists(st.integers(-(10**6), 10**13) | st.integers(1_700_000_000_000, 1_700_000_000_050), min_size=1, max_size=50),
    valid=st.floats(0.01, 0.5, exclude_max=True), test=st.floats(0.01, 0.5, exclude_max=True), count=st.integers(1, 5),
)  # fmt: skip
def test_the_cuts_are_those_of_all_times_at_once(times: list[int], valid: float, test: float, count: int) -> None:
    split = GlobalTime(valid_share=valid, test_share=test)
    expected = [pl.Series(times).quantile(share, "higher") for share in (1 - valid - test, 1 - test)]
    if expected[0] < expected[1]:
        assert split.cuts(parts_of(times, count)) == tuple(expected)
    else:
        with pytest.raises(InputError, match="finds no two distinct moments to cut at: use kind leave_one_out"):
            split.cuts(parts_of(times, count))


@quick
@given(values=st.lists(st.integers(-(2**61), 2**61) | st.integers(0, 200_000), min_size=1, max_size=40), data=st.data())
def test_order_statistics_are_exact(values: list[int], data: Any) -> None:
    places = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=3))
    count, low, high = extent(parts_of(values))
    assert (count, low, high) == (len(values), min(values), max(values))
    assert order_statistics(parts_of(values), places, low=low, high=high) == [sorted(values)[place] for place in places]


def test_days_are_counted_back_from_the_last_event() -> None:
    end = 1_700_000_000_000
    valid_ms, test_ms = GlobalTime(valid_days=2, test_days=7).cuts(parts_of([end, end - 30 * DAY, end - DAY]))
    assert end - test_ms + 1 == 7 * DAY
    assert test_ms - valid_ms == 2 * DAY


def test_dates_are_taken_as_they_are_without_reading_anything() -> None:
    split = GlobalTime(valid_from=datetime(2024, 1, 1), test_from=datetime(2024, 1, 2, tzinfo=UTC))
    assert split.cuts(lambda: pytest.fail("read")) == (1_704_067_200_000, 1_704_153_600_000)


def test_a_log_without_events_cannot_be_cut() -> None:
    for split in (GlobalTime(), GlobalTime(valid_days=1, test_days=1)):
        with pytest.raises(InputError, match="finds no two distinct moments"):
            split.cuts(parts_of([]))


@quick
@given(rows=ROWS, seed=st.integers(0, 2**64 - 1))
def test_random_holds_out_a_share_of_every_user(rows: list[Row], seed: int) -> None:
    found = apply(RandomPerUser(valid_share=0.2, test_share=0.3, seed=seed), frame(rows))
    for _, user in found.group_by("user"):
        splits = user.filter("in_history")["split"].to_list()
        n = len(splits)
        test = max(1, 3 * n // 10) if n >= 3 else 0
        valid = max(1, n // 5) if n >= 3 else 0
        assert splits == [0] * (n - test - valid) + [1] * valid + [2] * test
        assert all(part.select("time_ms", "row").equals(part.select("time_ms", "row").sort("time_ms", "row"))
                   for _, part in user.group_by("split"))  # fmt: skip


def test_random_leaves_a_training_event_however_large_the_share() -> None:
    found = apply(RandomPerUser(valid_share=0.05, test_share=0.9), frame([(0, time, True) for time in range(3)]))
    assert found["split"].to_list() == [0, 2, 2]


@quick
@given(rows=ROWS, seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_random_hangs_on_what_a_row_says_and_not_on_where_it_stands(rows: list[Row], seed: int, order: Any) -> None:
    split = RandomPerUser(valid_share=0.3, test_share=0.3, seed=seed)
    found = dict(apply(split, frame(rows)).select("row_hash", "split").iter_rows())
    shuffled = frame(rows).with_columns(pl.Series("row", order.sample(range(len(rows)), len(rows)), dtype=pl.UInt32))
    other = apply(split, shuffled.sort("user", "time_ms", "row"))
    assert dict(other.select("row_hash", "split").iter_rows()) == found


def test_random_draws_rows_evenly_and_anew_for_another_seed() -> None:
    rng = np.random.default_rng(0)
    rows = pl.DataFrame({"user": np.repeat(np.arange(400, dtype=np.int32), 50), "time_ms": np.tile(np.arange(50), 400)})
    rows = rows.with_columns(
        pl.Series("row_hash", rng.integers(0, 2**63, 20_000).astype(np.uint64)), in_history=pl.col("time_ms") < 25
    ).with_row_index("row")
    found = {seed: apply(RandomPerUser(seed=seed), rows).sort("row") for seed in (0, 1)}
    held_out = found[0].filter(pl.col("split") == 2)
    assert held_out.filter("in_history").height == 400 * 2  # a tenth of 25, downwards
    # 10,000 rows outside the timeline, each with chance .1 (deviation 30); times of test events average 12 (deviation .25).
    assert held_out.filter(~pl.col("in_history")).height == pytest.approx(1000, abs=150)
    assert held_out.filter("in_history")["time_ms"].mean() == pytest.approx(12, abs=1.25)
    both = ((found[0]["split"] == 2) & (found[1]["split"] == 2)).sum()
    assert both < 0.3 * held_out.height  # a tenth by chance


def test_lots_that_agree_in_their_upper_bits_are_still_told_apart() -> None:
    unit = np.array([0, 0, 0, 1, 1])
    lots = np.array([3, 1, 2, 1, 0], np.uint64)
    assert _by_lot(unit, lots).tolist() == [1, 2, 0, 4, 3]
    assert _by_lot(unit, lots << np.uint64(60)).tolist() == [1, 2, 0, 4, 3]


def test_given_files_are_found_by_their_names() -> None:
    split = GivenFiles(valid="*valid*", test="test/*")
    assert split.given(["train/0.csv", "x-valid.csv", "test/0.csv", "test/b/1.csv"]) == [0, 1, 2, 2]
    with pytest.raises(InputError, match=r"split.valid '\*valid\*' matches none of 2 files, such as a.csv, test/0.csv: mend"):
        split.given(["a.csv", "test/0.csv"])
    with pytest.raises(InputError, match=r"test/valid.csv matches both split.valid '\*valid\*' and split.test"):
        split.given(["test/valid.csv", "x-valid.csv"])


@quick
@given(rows=ROWS)
def test_given_files_decide_whatever_the_time(rows: list[Row]) -> None:
    found = apply(GivenFiles(valid="v", test="t"), frame(rows))
    assert found["split"].equals(found["given_split"].alias("split"))


def test_every_kind_is_tested_here() -> None:
    assert {type(split) for split in SPLITS} == set(get_args(get_args(Split)[0]))


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.kind)
@quick
@given(rows=ROWS, ties=TIES)
def test_what_holds_for_all(split: Any, rows: list[Row], ties: str) -> None:
    found = apply(split, frame(rows), ties)
    assert found["user"].is_sorted()
    for _, user in found.filter("in_history").group_by("user"):
        assert user["split"].is_sorted()
    shards = [apply(split, frame(rows).filter(pl.col("user") % 2 == shard), ties) for shard in (0, 1)]
    assert pl.concat(shards).sort("user", maintain_order=True).equals(found)
    assert split(frame(rows).lazy(), cuts_ms=(2, 4), ties=ties).collect(engine="streaming").equals(found)


@pytest.mark.parametrize("split", SPLITS[1:], ids=lambda split: split.kind)
def test_sessions_are_split_each_for_itself(split: Any) -> None:
    rows = [(0, time, True) for time in range(6)]
    cut = frame(rows).with_columns(pl.Series("session", [0, 0, 0, 1, 1, 1], dtype=pl.Int32))
    found = apply(split, cut)
    assert found["session"].to_list() == [0, 0, 0, 1, 1, 1]
    assert found["split"].to_list() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "time", "valid_share": 0.6, "test_share": 0.4}, "leave nothing to train on"),
        ({"kind": "random", "valid_share": 0.6, "test_share": 0.4}, "leave nothing to train on"),
        ({"kind": "time", "valid_from": "2024-01-01"}, "give both valid_from and test_from, or neither"),
        ({"kind": "time", "valid_from": "2024-01-02", "test_from": "2024-01-01"}, "is not before test_from"),
        ({"kind": "time", "valid_days": 3}, "give both valid_days and test_days, or neither"),
        ({"kind": "time", "valid_days": 0, "test_days": 1}, "greater than 0"),
        ({"kind": "time", "valid_days": 1, "test_days": 1, "valid_from": "2024-01-01", "test_from": "2024-02-01"}, "not both"),
        ({"kind": "files", "valid": "v/*"}, "Field required"),
        ({"kind": "last"}, "does not match any of the expected tags"),
    ],
)
def test_a_split_that_makes_no_sense_fails_at_load(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Split).validate_python(config)
