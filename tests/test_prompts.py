"""What a prompt shows of a user's past."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.columns import ITEM, POSITION, PROPENSITY, SPLIT, TEST, TIME_MS, TRAIN, USER, VALID, label
from recsys.dataset import Dataset
from recsys.prompts import Histories, LoggedLoader, PromptLoader

TIMELINES = [[2, 3, 4, 5, 6, 7], [8, 9, 8, 10], [11], [12, 13, 12, 13, 12]]  # the last two events validate and test


def examples() -> pl.DataFrame:
    """The log's row of each event: liked where the item is even; and rows that were shown and not taken."""
    rows = []
    for user, timeline in enumerate(TIMELINES, 2):
        for place, item in enumerate(timeline):
            split = TRAIN if len(timeline) < 3 or place < len(timeline) - 2 else VALID if place == len(timeline) - 2 else TEST
            rows.append((user, item, place, place, split, float(item % 2 == 0), 0.25))
            rows.append((user, 14, place, place, split, 0.0, float("nan") if place == 0 else 0.5))
    schema = {USER: pl.Int32, ITEM: pl.Int32, POSITION: pl.Int32, TIME_MS: pl.Int64, SPLIT: pl.Int8}
    return pl.DataFrame(rows, {**schema, label("like"): pl.Float32, PROPENSITY: pl.Float32}, orient="row")


def rows_of(batch: object, name: str) -> list[list[int]]:
    ids = batch.ids[name]  # type: ignore[attr-defined]
    return [part.tolist() for part in ids.value_N.split(ids.length_B.tolist())]


def test_a_prompt_is_a_place_of_a_timeline(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(TIMELINES, num_items=16, examples=examples())
    loader = PromptLoader(Histories(data, 2, reads_time=True), 8, seed=1, tasks=["like"])
    batch = loader.batch(np.array([2, 5, 3]), np.array([3, 1, 0]))
    assert rows_of(batch, "user") == [[2], [5], [3]]
    assert rows_of(batch, "item") == [[5], [13], [8]]
    assert rows_of(batch, "history") == [[3, 4], [12], []]  # the last two
    assert rows_of(batch, "seen") == [[2, 3, 4], [12], []]  # all of them
    assert rows_of(batch, "time") == [[1, 2, 3], [0, 1], [0]]  # a time is the place in the timeline; the request's is last
    assert batch.label_BT.tolist() == [[0], [0], [1]]
    first, last = batch.split([1, 2])
    assert rows_of(first, "time") == [[1, 2, 3]]
    assert rows_of(last, "seen") == [[12], []]


def test_what_is_not_asked_for_is_left_out(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(TIMELINES, num_items=16)
    batch = PromptLoader(Histories(data, 2, seen=False), 8, seed=1).batch(np.array([2]), np.array([3]))
    assert rows_of(batch, "seen") == [[]]
    assert "time" not in batch.ids
    assert batch.label_BT.shape == (1, 0)
    at_last_event = Histories(data, 2, reads_time=True, request_time="last_event")
    batch = PromptLoader(at_last_event, 8, seed=1).batch(np.array([2, 3]), np.array([3, 0]))
    assert rows_of(batch, "time") == [[1, 2, 2], [0]]


@settings(max_examples=15, deadline=None)
@given(batch_size=st.integers(1, 5), seed=st.integers(0, 3), world_size=st.integers(1, 2))
def test_an_epoch_has_one_training_event_of_every_user_who_has_two(
    planted: Dataset, batch_size: int, seed: int, world_size: int
) -> None:
    histories = Histories(planted, 4)
    batch_size = max(batch_size, 2 * world_size)
    found: dict[int, int] = {}
    for rank in range(world_size):
        loader = PromptLoader(histories, batch_size, seed, rank=rank, world_size=world_size)
        batches = list(loader.epoch(3))
        assert len(batches) == loader.num_batches(3)
        for batch in batches:
            assert batch.rows
            for (user,), seen, (item,) in zip(
                rows_of(batch, "user"), rows_of(batch, "seen"), rows_of(batch, "item"), strict=True
            ):
                assert user not in found
                found[user] = len(seen)
                timeline = planted.timelines.item_E[planted.start_U[user] :][: planted.train_length_U[user]].tolist()
                assert seen
                assert timeline[: len(seen) + 1] == [*seen, item]
    assert sorted(found) == np.flatnonzero(planted.train_length_U > 1).tolist()
    loader = PromptLoader(histories, batch_size, seed)
    later, resumed = list(loader.epoch(3))[1:], list(loader.epoch(3, first_batch=1))
    assert [rows_of(batch, "seen") for batch in later] == [rows_of(batch, "seen") for batch in resumed]


def test_epochs_take_other_events(planted: Dataset) -> None:
    loader = PromptLoader(Histories(planted, 4), 1000, seed=1)
    places = []
    for epoch in range(40):
        [batch] = loader.epoch(epoch)
        length_B = batch.ids["seen"].length_B.numpy()
        places.append(length_B[np.argsort(batch.ids["user"].value_N.numpy())])
    longest = np.max(places, axis=0)
    assert (longest == planted.train_length_U[planted.train_length_U > 1] - 1).all()
    assert np.min(places) == 1


def test_validation_prompts_are_first_events_of_the_split(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(TIMELINES, num_items=16)
    batches = list(PromptLoader(Histories(data, 2, seen=False), 2, seed=1).first_of(VALID))
    assert [rows_of(batch, "user") for batch in batches] == [[[2], [3]], [[5]]]
    assert [rows_of(batch, "item") for batch in batches] == [[[6], [8]], [[13]]]
    assert rows_of(batches[0], "history") == [[4, 5], [8, 9]]
    [batch] = PromptLoader(Histories(data, 2), 2, seed=1).first_of(VALID)
    assert (rows_of(batch, "user"), rows_of(batch, "seen")) == ([[2]], [[2, 3, 4, 5]])  # the others' is a repeat


@pytest.mark.parametrize("seen", [True, False])
def test_a_repeat_is_no_prompt_where_it_is_not_recommended(seen: bool, make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(TIMELINES, num_items=16)
    loader = PromptLoader(Histories(data, 2, seen=seen), 8, seed=1)
    found = {
        (user, item)
        for epoch in range(30)
        for batch in loader.epoch(epoch)
        for (user,), (item,) in zip(rows_of(batch, "user"), rows_of(batch, "item"), strict=True)
    }
    assert found == {(2, 3), (2, 4), (2, 5), (3, 9), (5, 13), *([] if seen else [(5, 12)])}


def test_rows_of_the_log_have_what_was_shown_and_its_chance(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(TIMELINES, num_items=16, examples=examples())
    loader = LoggedLoader(Histories(data, 2, reads_time=True), 4, seed=1, tasks=["like"])
    train = examples().filter((pl.col(SPLIT) == TRAIN) & pl.col(PROPENSITY).is_not_nan())
    assert len(loader.row_X) == len(train) < len(LoggedLoader(loader.histories, 4, 1, ["like"], propensity=False).row_X)
    seen = []
    for batch in loader.epoch(0):
        for user, item, history, times, chance, liked in zip(
            rows_of(batch, "user"), rows_of(batch, "item"), rows_of(batch, "history"), rows_of(batch, "time"),
            batch.propensity_B.tolist(), batch.label_BT[:, 0].tolist(), strict=True,
        ):  # fmt: skip
            place = times[-1]
            assert TIMELINES[user[0] - 2][max(0, place - 2) : place] == history
            assert chance == (0.5 if item == [14] else 0.25)
            assert liked == (item[0] % 2 == 0 and item != [14])
            seen.append((user[0], place, item[0]))
    assert sorted(seen) == sorted(train.select(USER, POSITION, ITEM).rows())
    whole = torch.cat([batch.ids["item"].value_N for batch in loader.in_order()])
    assert whole.tolist() == train[ITEM].to_list()
    assert loader.num_batches(0) == len(list(loader.epoch(1)))


def test_rows_without_a_reward_can_be_left_out(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(TIMELINES, num_items=16, examples=examples().with_columns(pl.lit(0.0).alias(label("share"))))
    loader = LoggedLoader(Histories(data, 2), 4, seed=1, tasks=["like", "share"], rewarded=True)
    liked = examples().filter((pl.col(SPLIT) == TRAIN) & (pl.col(label("like")) == 1))
    assert data.examples[ITEM][loader.row_X].tolist() == liked[ITEM].to_list() != []
    assert not len(LoggedLoader(loader.histories, 4, 1, ["share"], rewarded=True).row_X)


def test_a_log_without_what_is_read_has_no_rows(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(TIMELINES, num_items=16, examples=examples().drop(PROPENSITY))
    assert not len(LoggedLoader(Histories(data, 2), 4, seed=1, tasks=["like"]).row_X)
    assert not len(LoggedLoader(Histories(data, 2), 4, seed=1, tasks=["share"], propensity=False).row_X)
    assert len(LoggedLoader(Histories(data, 2), 4, seed=1, tasks=["like"], propensity=False).row_X)


def test_prompts_may_be_of_another_split_and_of_some_users(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset(TIMELINES, num_items=16)
    some_U = np.array([False, False, True, False, False, True])
    [batch] = PromptLoader(Histories(data, 2, seen=False), 8, seed=1, split=VALID, only_U=some_U).epoch(0)
    assert sorted(zip(rows_of(batch, "user"), rows_of(batch, "item"), strict=True)) == [([2], [6]), ([5], [13])]
    [batch] = PromptLoader(Histories(data, 2), 8, seed=1, split=VALID, only_U=some_U).epoch(0)
    assert rows_of(batch, "user") == [[2]]  # the other's is a repeat
    [batch] = PromptLoader(Histories(data, 2, seen=False), 8, seed=1, only_U=some_U).first_of(VALID)
    assert rows_of(batch, "user") == [[2], [5]]
