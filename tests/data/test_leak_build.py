"""No example knows what comes after it, planted future events included; and a log that leaks is told so, pair by pair."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dataset_contents import bits
from growing_log import DAY, DAYS, DTYPES, EVENTS, HOUR, T0, config, days, table_rows, write_day, write_tables
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recsys.columns import ASOF_PREFIX, CONTEXT_PREFIX
from recsys.data.build import build
from recsys.data.leaks import leaks, sentences
from recsys.dataset import Dataset

SPLIT = {"kind": "time", "valid_from": "2023-11-16T06:00:00Z", "test_from": "2023-11-18T00:00:00Z"}
TOGETHER = EVENTS | {"arrives": "together"}


def examples(folder: Path, *, before: int | None = None) -> pl.DataFrame:
    """Examples, all or those earlier than `before` (seconds), with external ids and values and the bits of all numbers.

    Each has its history too, and the rows are sorted: numbers of ids and the order of files are no part of an example.
    """
    data = Dataset(folder)
    rows = bits(pl.DataFrame({name: np.asarray(column) for name, column in data.examples.items()}))
    begin = data.start_U[rows["user"]]
    history = [data.item_E[first : first + length] for first, length in zip(begin, rows["position"], strict=True)]
    owners = {CONTEXT_PREFIX + name: ("context", name) for name in data.context}
    owners |= {ASOF_PREFIX + name: ("user", name) for name in data.asof}
    words = {name: [None, None, *data.vocabulary(*owner)] for name, owner in owners.items()}
    words |= {"user": data.user_ids, "item": data.item_ids}
    decoded = [pl.Series(name, [text[code] for code in rows[name]], pl.String) for name, text in words.items()]
    told = pl.Series("history", [[data.item_ids[item] for item in items] for items in history], pl.List(pl.String))
    rows = rows.with_columns(*decoded, told)
    assert rows["item"].null_count() == 0
    return rows.filter(pl.col("time_ms") < (before or 2**40) * 1000).sort(rows.drop("history").columns)


FUTURE = st.lists(
    st.tuples(
        st.integers(0, 40), st.integers(0, 29), st.integers(0, 6 * DAY), st.integers(0, 1), st.integers(0, 60),
        st.sampled_from(["device 9", "device 8", "new"]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def future_rows(drawn: list[Any], begin: int) -> pl.DataFrame:
    rows = [(f"u{99 - u}", f"i{99 - i}", begin + after, *rest) for u, i, after, *rest in drawn]
    return pl.DataFrame(rows, DTYPES, orient="row")


@settings(max_examples=6, deadline=None)
@given(drawn=FUTURE, hour=st.integers(1, DAYS * 24), ties=st.sampled_from(["file_order", "simultaneous"]))
def test_events_from_a_moment_on_change_no_example_before_it(drawn: list[Any], hour: int, ties: str) -> None:
    begin = T0 + hour * HOUR
    data = config(events=TOGETHER | {"ties": ties}, split=SPLIT)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        write_tables(raw)
        for day, frame in enumerate(days()):
            write_day(raw, day, frame)
        build(data, raw, raw / "a")
        write_day(raw, "future", future_rows(drawn, begin))
        (raw / "log" / "d=future").rename(raw / "log" / "a future that stands first among the files")
        build(data, raw, raw / "b")
        assert_frame_equal(examples(raw / "b", before=begin), examples(raw / "a", before=begin), check_exact=True)
        assert len(examples(raw / "b")) > len(examples(raw / "b", before=begin))


@settings(max_examples=6, deadline=None)
@given(drawn=FUTURE, hour=st.integers(0, 30), late=FUTURE)
def test_later_arrivals_change_no_earlier_example(drawn: list[Any], hour: int, late: list[Any]) -> None:
    # The last day's folder gets events from some hour on; a new one brings events of the days before as well.
    begin = T0 + (DAYS - 1) * DAY + hour * HOUR
    data = config(events=EVENTS | {"max_lateness": "9d"}, split=SPLIT)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        write_tables(raw)
        *earlier, last = days()
        for day, frame in enumerate(earlier):
            write_day(raw, day, frame)
        write_day(raw, DAYS - 1, last)
        build(data, raw, raw / "a")
        future_rows(drawn, begin).write_parquet(raw / "log" / f"d={DAYS - 1}" / "more.parquet")
        write_day(raw, DAYS, future_rows(late, T0))
        build(data, raw, raw / "b")
        assert_frame_equal(examples(raw / "b", before=begin), examples(raw / "a", before=begin), check_exact=True)


def test_a_later_version_of_a_user_changes_no_earlier_example(raw: Path, tmp_path: Path) -> None:
    begin = T0 + 4 * DAY
    data = config(events=TOGETHER, split=SPLIT)
    write_tables(raw)
    for day, frame in enumerate(days()):
        write_day(raw, day, frame)
    build(data, raw, tmp_path / "a")
    users = table_rows()[1]
    moved = users.unique("u", maintain_order=True).with_columns(
        tier=pl.lit("tier Z"), since=pl.lit(begin, pl.Int64), known=pl.lit(begin, pl.Int64)
    )
    pl.concat([moved, users]).write_parquet(raw / "users.parquet")
    build(data, raw, tmp_path / "b")
    assert_frame_equal(examples(tmp_path / "b", before=begin), examples(tmp_path / "a", before=begin), check_exact=True)
    assert not examples(tmp_path / "b").equals(examples(tmp_path / "a"))


def test_a_planted_leak_is_named(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    # Ann's test purchase of the lamp was shown and clicked in the training file; Bob's of the rug was shown only.
    write("log/train.csv", f"u,i,t,click\nann,lamp,{T0},1\nann,desk,{T0 + 1},1\nbob,rug,{T0 + 2},0\nbob,desk,{T0 + 3},1\n")
    write("log/valid.csv", f"u,i,t,click\nann,rug,{T0 + 10},1\n")
    write("log/test.csv", f"u,i,t,click\nann,lamp,{T0 + 20},1\nbob,rug,{T0 + 21},1\ncy,sofa,{T0 + 2},1\n")
    events = {
        "path": "log", "user": "u", "item": "i", "time": "t", "columns": {"t": "int", "click": "int"},
        "history": "click = 1", "labels": {"click": "click"},
    }  # fmt: skip
    data = prepare(events, split={"kind": "files", "valid": "log/valid*", "test": "log/test*"})
    found = leaks(data.folder)
    seen = found["held_out"]["test"]["seen"]
    assert seen["timeline"] == {"pairs": 1, "events": 1, "share": pytest.approx(1 / 3), "examples": [["ann", "lamp"]]}
    assert seen["example"]["examples"] == [["ann", "lamp"], ["bob", "rug"]]
    assert seen["label_click"]["examples"] == [["ann", "lamp"]]
    assert found["test_before_others_train"]["count"] == 1  # cy's
    assert any("(user ann, item lamp; user bob, item rug)" in sentence for sentence in sentences(found))


def test_a_split_by_time_has_nothing_to_tell(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    rows = [f"u{n % 3},i{n},{T0 + n},1" for n in range(20)]
    write("log.csv", "\n".join(["u,i,t,click", *rows]))
    events = {
        "path": "log.csv",
        "user": "u",
        "item": "i",
        "time": "t",
        "columns": {"t": "int"},
        "labels": {"click": "click = '1'"},
    }
    assert sentences(leaks(prepare(events, split={"kind": "time"}).folder)) == []
