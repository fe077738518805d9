"""Groups of a user's positives stand together in a batch of one process."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.columns import TRAIN, USER, label
from recsys.dataset import Dataset
from recsys.loader import ExampleLoader
from recsys.together import grouped


def make(planted: Dataset, **options: int) -> ExampleLoader:
    return ExampleLoader(planted, tasks=["click"], split=TRAIN, max_history=3, batch_size=32, seed=1, **options)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999), users=st.integers(1, 9), rows=st.integers(1, 90), size=st.integers(2, 5),
    batch=st.integers(1, 20), world=st.integers(1, 3),
)  # fmt: skip
def test_every_row_once_and_whole_groups_to_a_process(
    seed: int, users: int, rows: int, size: int, batch: int, world: int
) -> None:
    rng = np.random.default_rng(seed)
    row_X, user_X, positive_X = np.arange(rows) * 3, rng.integers(users, size=rows), rng.random(rows) < 0.6
    ends = [*range(batch, rows, batch), rows]
    batches = grouped(row_X, user_X, positive_X, size, ends, rng)
    assert [len(one.row_B) for one in batches] == np.diff([0, *ends]).tolist()
    assert sorted(row for one in batches for row in one.row_B.tolist()) == row_X.tolist()
    possible = sum(count // size for count in np.bincount(user_X[positive_X], minlength=users))
    assert sum(one.groups for one in batches) == min(possible, sum(length // size for length in np.diff([0, *ends])))
    for one in batches:
        group_GK = one.row_B[: one.groups * size].reshape(-1, size) // 3
        assert (user_X[group_GK] == user_X[group_GK[:, :1]]).all()
        assert positive_X[group_GK].all()
        shares = [one.share(rank, world).tolist() for rank in range(world)]
        assert sorted(np.concatenate(shares).tolist()) == sorted(one.row_B.tolist())
        if one.groups + len(one.row_B) - one.groups * size >= world:
            assert all(shares), "a process without rows"
            for group in (group_GK * 3).tolist():
                assert any(set(group) <= set(share) for share in shares), "a torn group"


def test_the_loader_keeps_its_promises(planted: Dataset) -> None:
    """Every example once, the same order again, going on in the middle, and as many batches as without."""
    loader = make(planted, together=3)
    rows = [batch.tolist() for batch in loader._mine(2, 0)]
    assert sorted(np.concatenate(rows).tolist()) == loader.row_X.tolist()
    assert rows == [batch.tolist() for batch in make(planted, together=3)._mine(2, 0)]
    assert rows != [batch.tolist() for batch in loader._mine(3, 0)]
    assert rows[5:] == [batch.tolist() for batch in loader._mine(2, 5)]
    assert len(list(loader.epoch(2))) == len(rows) == loader.num_batches(2) == make(planted).num_batches(2)
    halves = [[batch.tolist() for batch in make(planted, together=3, rank=rank, world_size=2)._mine(2, 0)] for rank in range(2)]
    assert [sorted(first + second) for first, second in zip(*halves, strict=True)] == [sorted(batch) for batch in rows]


@pytest.mark.parametrize("world_size", [1, 2])
def test_positives_of_a_user_meet_in_a_batch(planted: Dataset, world_size: int) -> None:
    """A user's first two positives of a batch stand side by side far more often than in a shuffled epoch."""

    def met(together: int) -> float:
        found = total = 0
        for rank in range(world_size):
            for batch in make(planted, together=together, rank=rank, world_size=world_size).epoch(0):
                positive_B = batch.label_BT[:, 0] == 1
                count = Counter(batch.ids["user"].value_N[positive_B].tolist())
                found += sum(n for n in count.values() if n >= 2)
                total += int(positive_B.sum())
        return found / total

    assert met(2) > 0.8 > 0.5 > met(1)


def test_one_together_is_the_plain_order(planted: Dataset) -> None:
    plain, one = make(planted), make(planted, together=1)
    assert all(
        torch.equal(torch.from_numpy(a), torch.from_numpy(b)) for a, b in zip(plain._mine(0, 0), one._mine(0, 0), strict=True)
    )
    user_X = planted.examples[USER][plain.row_X]
    assert (planted.examples[label("click")][plain.row_X] == 1).sum() > len(np.unique(user_X))
