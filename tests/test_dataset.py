"""The reader of a dataset. Shapes: E = timeline events, U = users, X = examples, N = rows asked for."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_data import write_dataset

from recsys import segments
from recsys.artefact import MANIFEST
from recsys.columns import (
    FIRST_ID,
    ITEM,
    POSITION,
    SPLIT,
    TEST,
    TRAIN,
    USER,
    VALID,
    asof,
    feature,
    label,
    timeline_file,
)
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.jagged import Jagged
from recsys.segments import Column

Make = Callable[..., Dataset]
TIMELINES = ([5, 6, 7, 5], [], [8], [9, 9, 6, 4, 3, 2])
SPLITS = ([TRAIN, TRAIN, VALID, TEST], [], [TEST], [TRAIN, VALID, VALID, VALID, TEST, TEST])


def examples(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            USER: np.arange(rows, dtype=np.int32) % 4 + FIRST_ID,
            ITEM: np.arange(rows, dtype=np.int32) + FIRST_ID,
            POSITION: np.zeros(rows, np.int32),
            SPLIT: (np.arange(rows) % 3).astype(np.int8),
            label("click"): np.linspace(0, 1, rows, dtype=np.float32),
            feature("rate"): np.linspace(5, 6, rows, dtype=np.float32),
            feature("age"): np.zeros(rows, np.float32),
            asof("genre"): np.full(rows, 3, np.int32),
        }
    )


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_timeline_is_whole_however_many_segments_it_lies_in(number: int, make_dataset: Make) -> None:
    data = make_dataset(TIMELINES, splits=SPLITS, num_items=12, segments=number)
    assert data.item_E.tolist() == [item for timeline in TIMELINES for item in timeline]
    assert data.time_ms_E.tolist() == [place for timeline in TIMELINES for place in range(len(timeline))]
    assert data.item_E.dtype == np.int32
    assert data.time_ms_E.dtype == np.int64
    assert data.start_U.tolist() == [0, 0, 0, 4, 4, 5]
    assert [data.item_E[b:e].tolist() for b, e in zip(data.start_U, data.start_U + data.length_U, strict=True)] == [
        [], [], *map(list, TIMELINES),
    ]  # fmt: skip
    assert data.timelines.lengths.tolist() == [0, 0, 4, 0, 1, 6]


def test_splits_of_a_timeline_follow_each_other(make_dataset: Make) -> None:
    data = make_dataset(TIMELINES, splits=SPLITS, num_items=12)
    found = {split: [data.item_E[b : b + n].tolist() for b, n in zip(*data.events(split), strict=True)] for split in range(3)}
    assert found[TRAIN] == [[], [], [5, 6], [], [], [9]]
    assert found[VALID] == [[], [], [7], [], [], [9, 6, 4]]
    assert found[TEST] == [[], [], [5], [], [8], [3, 2]]
    assert np.flatnonzero(data.cold_users).tolist() == [3, 4]
    assert np.flatnonzero(data.cold_items).tolist() == [2, 3, 4, 7, 8, 10, 11]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), users=st.integers(1, 5), number=st.integers(1, 4), at_once=st.integers(1, 7))
def test_merging_equals_joining_lists(data: st.DataObject, users: int, number: int, at_once: int) -> None:
    lists = st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=users, max_size=users)
    parts = [data.draw(lists) for _ in range(number)]
    owners = [np.repeat(np.arange(users, dtype=np.int32), list(map(len, part))) for part in parts]
    pairs = [(owner, Jagged.from_lists(part).item_E) for owner, part in zip(owners, parts, strict=True)]
    whole = [[item for part in parts for item in part[user]] for user in range(users)]
    start_U = np.cumsum([0, *map(len, whole[:-1])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "MERGED_AT_ONCE", at_once)
        assert segments.merged(pairs, start_U).tolist() == [item for row in whole for item in row]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5), data=st.data())
def test_a_column_of_several_files_is_like_one_array(sizes: list[int], data: st.DataObject) -> None:
    whole = np.arange(sum(sizes), dtype=np.int16) * 3
    column = Column(np.split(whole, np.cumsum(sizes)[:-1]))
    rows = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=9)) if len(whole) else []
    for dtype in (np.int32, np.int64):
        found = column[np.array(rows, dtype)]
        assert found.tolist() == whole[rows].tolist()
        assert found.dtype == np.int16
    begin, end = sorted(data.draw(st.tuples(st.integers(0, 30), st.integers(0, 30))))
    assert column[begin:end].tolist() == whole[begin:end].tolist()
    assert np.asarray(column).tolist() == whole.tolist()
    assert (column == 3).tolist() == (whole == 3).tolist()
    assert (len(column), column.dtype) == (len(whole), np.int16)


@pytest.mark.parametrize("row", [-1, 6])
def test_a_row_that_a_column_lacks_is_our_own_mistake(row: int) -> None:
    with pytest.raises(AssertionError):
        Column([np.arange(4), np.arange(2)])[np.array([row, 3])]


@pytest.mark.parametrize("number", [1, 4])
def test_examples_count_through_the_files(number: int, make_dataset: Make) -> None:
    frame = examples(11)
    data = make_dataset(TIMELINES, splits=SPLITS, num_items=20, segments=number, examples=frame)
    for name in frame.columns:
        assert np.asarray(data.examples[name]).tolist() == frame[name].to_list()
    for split in (TRAIN, VALID, TEST):
        assert data.example_rows(split).tolist() == [row for row in range(11) if row % 3 == split]
    assert data.dense == ["rate", "age"]
    assert data.asof == ["genre"]


def test_a_dataset_without_examples_has_no_rows_of_them(make_dataset: Make) -> None:
    data = make_dataset(TIMELINES, splits=SPLITS, num_items=12)
    assert dict(data.examples) == {}
    assert data.example_rows(TRAIN).tolist() == data.dense == data.asof == []


def test_empty_files_keep_their_types(make_dataset: Make) -> None:
    data = make_dataset([[], []], num_items=4, segments=2, examples=examples(1)[:0])
    assert (len(data.item_E), data.item_E.dtype) == (0, np.int32)
    assert {name: column.dtype for name, column in data.examples.items()} == {
        name: np.dtype(dtype) for name, dtype in zip(
            (USER, ITEM, POSITION, label("click"), feature("rate"), feature("age"), asof("genre"), "weight", SPLIT),
            ("i4", "i4", "i4", "f4", "f4", "f4", "i4", "f4", "i1"), strict=True,
        )
    }  # fmt: skip


def test_what_lies_in_one_file_is_mapped_and_not_copied(tmp_path: Path, make_dataset: Make) -> None:
    data = make_dataset(TIMELINES, splits=SPLITS, num_items=20, examples=examples(11))
    before = pa.total_allocated_bytes()
    arrays = [data.item_E, data.time_ms_E, data.start_U, data.length_U, data.train_length_U, data.train_count_I]
    arrays += [np.asarray(column) for column in data.examples.values()]
    assert pa.total_allocated_bytes() == before
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)


def test_features_and_vocabularies_of_a_dataset_without_any(make_dataset: Make) -> None:
    data = make_dataset(TIMELINES, splits=SPLITS, num_items=12)
    assert data.features == []
    assert data.vocabulary("item", "genre") == []
    assert data.item_ids[:3] == [None, None, "i2"]
    assert data.user_ids[-1] == "u5"


def test_an_older_format_and_a_missing_segment_are_refused(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d", TIMELINES, splits=SPLITS, num_items=12, segments=2).folder
    whole = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(json.dumps(json.loads(whole) | {"format_version": 1}))
    with pytest.raises(InputError, match="format version 1, this recsys reads version 2: make it again"):
        Dataset(folder)
    (folder / MANIFEST).write_text(whole)
    (folder / timeline_file("001")).unlink()
    with pytest.raises(InputError, match=r"timeline/001\.arrow is missing"):
        Dataset(folder)
