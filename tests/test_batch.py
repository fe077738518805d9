"""Shapes: B = sequences or examples, L = history, N = ids of all rows of the batch joined."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_data import write_dataset

import recsys.loader
from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID, ITEM, POSITION, SPLIT, TEST, TRAIN, USER, VALID, asof, feature, label
from recsys.dataset import Dataset
from recsys.loader import ExampleLoader, Prefetched, SequenceLoader

Make = Callable[..., Dataset]


def numbered(lengths: list[int]) -> list[list[int]]:
    """Timelines in which every event is an item of its own, so that an event seen twice or never shows."""
    ends = np.cumsum(lengths) + FIRST_ID
    return [list(range(end - length, end)) for length, end in zip(lengths, ends, strict=True)]


def windows(batches: list[Batch]) -> list[list[int]]:
    return [
        part.tolist()
        for batch in batches
        for part in batch.ids["history"].value_N.split(batch.ids["history"].length_B.tolist())
    ]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.ids.keys() == b.ids.keys()
        and all(
            torch.equal(a.ids[n].value_N, b.ids[n].value_N) and torch.equal(a.ids[n].length_B, b.ids[n].length_B) for n in a.ids
        )
        and torch.equal(a.label_BT.nan_to_num(-1), b.label_BT.nan_to_num(-1))
        and torch.equal(a.weight_B, b.weight_B)
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture
def long_timelines(make_dataset: Make) -> tuple[Dataset, list[list[int]]]:
    """Lengths around multiples of a window, users without training events, a user without any."""
    timelines = numbered([1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 40, 0, 41, 42, 100, 4])
    return make_dataset(timelines, num_items=sum(map(len, timelines)) + FIRST_ID), timelines


@pytest.mark.parametrize("max_history", [1, 2, 5, 10, 200])
def test_windows_cover_every_training_event_once(long_timelines: tuple[Dataset, list[list[int]]], max_history: int) -> None:
    data, timelines = long_timelines
    train = [timeline if len(timeline) < 3 else timeline[:-2] for timeline in timelines]
    for epoch in range(4):
        found = windows(list(SequenceLoader(data, max_history, 4, seed=1).epoch(epoch)))
        assert sorted(event for window in found for event in window) == [event for timeline in train for event in timeline]
        assert all(1 <= len(window) <= max_history + 1 for window in found)  # all but the last event are read
        assert all(window == list(range(window[0], window[-1] + 1)) for window in found), "a window goes on past a gap"
        starts = {timeline[0] for timeline in train if timeline}
        assert sum(window[0] in starts for window in found) == len(starts), "a window spans two users"


def test_the_cuts_of_a_long_timeline_move_from_epoch_to_epoch(long_timelines: tuple[Dataset, list[list[int]]]) -> None:
    loader = SequenceLoader(long_timelines[0], 10, 4, seed=1)
    cuts = {tuple(sorted(window[0] for window in windows(list(loader.epoch(epoch))))) for epoch in range(6)}
    assert len(cuts) > 1


@pytest.fixture(params=["sequences", "examples", "examples by length"])
def make_loader(request: pytest.FixtureRequest, planted: Dataset) -> Callable[..., SequenceLoader | ExampleLoader]:
    def make(seed: int = 1, rank: int = 0, world_size: int = 1) -> SequenceLoader | ExampleLoader:
        if request.param == "sequences":
            return SequenceLoader(planted, 5, 8, seed, rank, world_size)
        return ExampleLoader(
            planted,
            tasks=["click", "like"],
            split=TRAIN,
            max_history=3,
            batch_size=32,
            seed=seed,
            rank=rank,
            world_size=world_size,
            bucket_by_length=request.param == "examples by length",
        )

    return make


@pytest.mark.parametrize("gathered_rows", [1, 100, recsys.loader.GATHERED_ROWS])
class TestAnyLoader:
    @pytest.fixture(autouse=True)
    def rows_gathered_at_once(self, gathered_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recsys.loader, "GATHERED_ROWS", gathered_rows)

    def test_same_seed_and_epoch_same_batches(self, make_loader: Callable[..., SequenceLoader]) -> None:
        reference = list(make_loader().epoch(3))
        assert same(reference, list(make_loader().epoch(3)))
        assert not same(reference, list(make_loader().epoch(4)))
        assert not same(reference, list(make_loader(seed=2).epoch(3)))

    def test_resuming_equals_skipping(self, make_loader: Callable[..., SequenceLoader]) -> None:
        reference = list(make_loader().epoch(2))
        for first in (0, 1, len(reference) - 1, len(reference)):
            assert same(reference[first:], list(make_loader().epoch(2, first)))

    def test_announced_number_of_batches(self, make_loader: Callable[..., SequenceLoader]) -> None:
        for world_size in (1, 2, 3):
            for epoch in range(3):
                counts = {
                    len(list(loader.epoch(epoch)))
                    for loader in (make_loader(rank=r, world_size=world_size) for r in range(world_size))
                }
                assert counts == {make_loader().num_batches(epoch)}

    def test_ranks_share_the_batches_of_one_process(self, make_loader: Callable[..., SequenceLoader]) -> None:
        alone = list(make_loader().epoch(1))
        parts = [list(make_loader(rank=rank, world_size=3).epoch(1)) for rank in range(3)]
        for whole, *shares in zip(alone, *parts, strict=True):
            rows = [share.split([1] * share.rows) for share in shares]
            woven = [rows[place % 3][place // 3] for place in range(whole.rows)]
            assert same(woven, whole.split([1] * whole.rows))
            assert sum(share.rows for share in shares) == whole.rows

    def test_a_small_remainder_joins_the_last_batch(self, make_loader: Callable[..., SequenceLoader]) -> None:
        sizes = [batch.rows for batch in make_loader().epoch(0)]
        usual = max(set(sizes), key=sizes.count)
        assert min(sizes) >= usual / 2
        assert max(sizes) < 1.5 * usual

    def test_prefetched_batches_are_the_same(self, make_loader: Callable[..., SequenceLoader]) -> None:
        prefetched = Prefetched(make_loader())
        assert same(list(prefetched.epoch(1, 2)), list(make_loader().epoch(1, 2)))
        assert prefetched.num_batches(1) == make_loader().num_batches(1)


@pytest.mark.parametrize("by_length", [False, True])
def test_an_epoch_of_examples_has_each_once(planted: Dataset, by_length: bool) -> None:
    loader = ExampleLoader(
        planted, tasks=["click"], split=TRAIN, max_history=3, batch_size=32, seed=1, bucket_by_length=by_length
    )
    examples = planted.examples
    chosen = examples[SPLIT] == TRAIN
    expected = sorted(zip(examples[USER][chosen].tolist(), examples[ITEM][chosen].tolist(), strict=True))
    for batches in (list(loader.epoch(0)), list(loader.in_order())):
        found = [
            (u, i) for b in batches for u, i in zip(b.ids["user"].value_N.tolist(), b.ids["item"].value_N.tolist(), strict=True)
        ]
        assert sorted(found) == expected


def test_examples_by_length_leave_little_padding(planted: Dataset) -> None:
    def padded(by_length: bool) -> tuple[int, list[int]]:
        loader = ExampleLoader(
            planted, tasks=["click"], split=TRAIN, max_history=9, batch_size=32, seed=1, bucket_by_length=by_length
        )
        histories = [batch.ids["history"] for batch in loader.epoch(0)]
        return sum(ids.padded().numel() - len(ids.value_N) for ids in histories), [ids.padded().shape[1] for ids in histories]

    (plain, _), (sorted_by_length, longest) = padded(False), padded(True)
    assert sorted_by_length < plain / 3
    assert longest != sorted(longest), "short batches come first"


@pytest.mark.parametrize("segments", [1, 3])
def test_numbers_and_codes_as_of_the_example(make_dataset: Make, segments: int) -> None:
    rows = 40
    rng = np.random.default_rng(0)
    examples = pl.DataFrame(
        {
            USER: rng.integers(FIRST_ID, 5, rows).astype(np.int32),
            ITEM: np.arange(rows, dtype=np.int32) + FIRST_ID,
            POSITION: rng.integers(0, 3, rows).astype(np.int32),
            SPLIT: np.full(rows, TRAIN, np.int8),
            label("click"): np.ones(rows, np.float32),
            feature("rate"): rng.random(rows, np.float32),
            feature("age"): np.where(np.arange(rows) % 2, np.nan, 7).astype(np.float32),
            asof("price"): rng.integers(1, 9, rows).astype(np.int32),
        }
    )
    features = {"price": ("item", [1] * 50), "genre": ("item", list(range(50))), "town": ("user", [1, 1, 4, 5, 6])}
    data = make_dataset([[2, 3], [4, 5], [6, 7]], num_items=50, examples=examples, features=features, segments=segments)
    loader = ExampleLoader(data, tasks=["click"], split=TRAIN, max_history=3, batch_size=7, seed=0)
    for batch in [*loader.epoch(0), *loader.in_order()]:
        row_B = batch.ids["item"].value_N.numpy() - FIRST_ID
        assert batch.dense_BF.dtype == torch.float32
        expected_BF = examples.select(feature("rate"), feature("age"))[row_B.tolist()].to_numpy()
        np.testing.assert_array_equal(batch.dense_BF.numpy(), expected_BF)
        assert batch.ids["price"].value_N.tolist() == examples[asof("price")][row_B.tolist()].to_list()
        assert batch.ids["genre"].value_N.tolist() == (row_B + FIRST_ID).tolist()
        assert batch.ids["town"].value_N.tolist() == (batch.ids["user"].value_N + 2).tolist()
        assert all(ids.value_N.dtype == ids.length_B.dtype == torch.int64 for ids in batch.ids.values())
    for names in (["age"], ["age", "rate"], []):
        some = ExampleLoader(data, tasks=["click"], split=TRAIN, max_history=3, batch_size=7, seed=0, dense=names)
        for batch in some.in_order():
            row_B = (batch.ids["item"].value_N - FIRST_ID).tolist()
            assert batch.dense_BF.shape == (len(row_B), len(names))
            for place, name in enumerate(names):
                np.testing.assert_array_equal(batch.dense_BF[:, place], examples[feature(name)][row_B])


def test_missing_labels_and_attributes_arrive_unchanged(planted: Dataset) -> None:
    loader = ExampleLoader(planted, tasks=["like", "click"], split=VALID, max_history=3, batch_size=50, seed=1)
    examples = planted.examples
    codes = {name: planted.codes(name, owner) for name, owner in (("languages", "user"), ("tags", "item"), ("genre", "item"))}
    rows = iter(loader.row_X)
    for batch in loader.in_order():
        assert batch.label_BT.dtype == torch.float32
        split = {name: ids.value_N.split(ids.length_B.tolist()) for name, ids in batch.ids.items()}
        for place in range(len(batch.label_BT)):
            row = next(rows)
            expected = [examples[label(task)][row] for task in ("like", "click")]
            np.testing.assert_array_equal(batch.label_BT[place].numpy(), expected)  # NaN equals NaN here
            user, item = examples[USER][row], examples[ITEM][row]
            for name, key in (("languages", user), ("tags", item), ("genre", item)):
                offset = codes[name].offset_U1
                np.testing.assert_array_equal(split[name][place].numpy(), codes[name].item_E[offset[key] : offset[key + 1]])
            assert split["hour"][place].tolist() == [examples["context_hour"][row]]
    assert next(rows, None) is None
    assert np.isnan(examples[label("like")]).any()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), max_history=st.integers(1, 6), seed=st.integers(0, 99),
    segments=st.integers(1, 3),
)  # fmt: skip
def test_history_is_what_came_before_and_never_the_future(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], max_history: int, seed: int, segments: int
) -> None:
    timelines, rng = numbered(lengths), np.random.default_rng(seed)
    rows = [
        (user + FIRST_ID, 2, position, int(rng.integers(3)), 1.0)
        for user, timeline in enumerate(timelines)
        for position in range(len(timeline) + 1)
    ]
    schema = {USER: pl.Int32, ITEM: pl.Int32, POSITION: pl.Int32, SPLIT: pl.Int8, label("click"): pl.Float32}
    examples = pl.DataFrame(rows, orient="row", schema=schema)
    folder = tmp_path_factory.mktemp("property") / "dataset"
    data = write_dataset(folder, timelines, num_items=sum(lengths) + 3, examples=examples, segments=segments)
    for split in (TRAIN, VALID, TEST):
        loader = ExampleLoader(data, tasks=["click"], split=split, max_history=max_history, batch_size=4, seed=0)
        expected = [timelines[u - FIRST_ID][max(0, p - max_history) : p] for u, _, p, s, _ in rows if s == split]
        assert windows(list(loader.in_order())) == expected


def test_padded_rows() -> None:
    ids = Ids(torch.tensor([5, 6, 7]), torch.tensor([2, 0, 1]))
    assert ids.padded().tolist() == [[5, 6], [0, 0], [7, 0]]
    assert Ids(torch.empty(0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)).padded().tolist() == [[0], [0]]


def trained_on(data: Dataset, validation_too: bool) -> list[int]:
    """Every item of the training events, in order."""
    ends = data.train_length_U + validation_too * data.valid_length_U
    return [int(item) for start, end in zip(data.start_U, ends, strict=True) for item in data.item_E[start : start + end]]


def test_batches_by_tokens_fill_their_budget(long_timelines: tuple[Dataset, list[list[int]]]) -> None:
    data, _ = long_timelines
    loader = SequenceLoader(data, 10, 4, seed=1, batch_tokens=40)
    batches = list(loader.epoch(0))
    assert len(batches) == loader.num_batches(0)
    assert all(batch.rows * int(batch.ids["history"].length_B.max()) <= 40 for batch in batches)
    assert len({batch.rows for batch in batches}) > 1
    found = windows(batches)
    assert sorted(event for window in found for event in window) == trained_on(data, False)
    shares = [list(SequenceLoader(data, 10, 4, 1, rank, 2, batch_tokens=40).epoch(0)) for rank in range(2)]
    assert all(batch.rows for share in shares for batch in share), "a process without rows"


def test_events_come_with_their_times_and_validation_on_demand(long_timelines: tuple[Dataset, list[list[int]]]) -> None:
    data, _ = long_timelines
    for validation_too in (False, True):
        loader = SequenceLoader(data, 10, 4, seed=1, validation_too=validation_too)
        batches = list(loader.epoch(0))
        time = dict(zip(data.item_E.tolist(), data.time_ms_E.tolist(), strict=True))  # every event of this log has its own item
        for batch in batches:
            assert batch.time_N.tolist() == [time[item] for item in batch.ids["history"].value_N.tolist()]
        found = sorted(item for batch in batches for item in batch.ids["history"].value_N.tolist())
        assert found == sorted(trained_on(data, loader.validation_too))
