"""What every kind of shared negatives promises; a new member of the union is tested with no edit here.

Shapes: N = predictions, S = negatives, I = rows of the item table.
"""

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.stats import chisquare
from torch import Generator

from recsys.columns import FIRST_ID
from recsys.sample import InBatch, Mixed, PopularityNegatives, SharedNegatives, Uniform

MEMBERS = get_args(get_args(SharedNegatives)[0])
COUNT_I = torch.tensor([70, 90, 16, 1, 0, 81, 5, 5])  # padding and unknown have counts that must not matter
TARGET_N = torch.tensor([2, 5, 5, 2, 6, 5, 3, 5])


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
class TestContract:
    def test_items_and_expected_counts(self, member: Any) -> None:
        item_S, log_S, log_N = member().build(COUNT_I)(TARGET_N, Generator().manual_seed(0))
        assert item_S.dtype == torch.int64
        assert item_S.shape == log_S.shape
        assert log_N.shape == TARGET_N.shape
        assert log_S.dtype == log_N.dtype == torch.float32
        assert ((item_S >= FIRST_ID) & (item_S < len(COUNT_I))).all()
        assert torch.isfinite(log_S).all()
        by_item = dict(zip(item_S.tolist(), log_S.tolist(), strict=True))
        for target, log in zip(TARGET_N.tolist(), log_N.tolist(), strict=True):
            assert by_item.get(target, log) == log, "the same item has two expected counts"

    def test_reserved_targets_are_neither_drawn_nor_expected(self, member: Any) -> None:
        target_N = torch.tensor([0, 1, 5, 6, 1])
        item_S, _, log_N = member().build(COUNT_I)(target_N, Generator().manual_seed(0))
        assert (item_S >= FIRST_ID).all()
        assert log_N[[0, 1, 4]].tolist() == [-math.inf] * 3
        assert torch.isfinite(log_N[2:4]).all()

    def test_the_generator_alone_decides(self, member: Any) -> None:
        sampler, target_N = member().build(COUNT_I), torch.arange(2000) % 6 + FIRST_ID
        torch.manual_seed(1)
        first = sampler(target_N, Generator().manual_seed(4))
        torch.manual_seed(2)
        second = sampler(target_N, Generator().manual_seed(4))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_no_training_event_at_all(self, member: Any) -> None:
        item_S, log_S, log_N = member().build(torch.zeros_like(COUNT_I))(TARGET_N, Generator().manual_seed(0))
        assert (item_S >= FIRST_ID).all()
        assert torch.isfinite(log_S).all()
        assert torch.isfinite(log_N).all()

    def test_one_row_alone(self, member: Any) -> None:
        item_S, log_S, _ = member().build(COUNT_I)(torch.tensor([5]), Generator().manual_seed(0))
        assert torch.isfinite(log_S).all()
        assert len(item_S)

    def test_reads_back_from_its_own_settings(self, member: Any) -> None:
        adapter = TypeAdapter(SharedNegatives)
        assert adapter.validate_python(member().model_dump(mode="json")) == member()
        with pytest.raises(ValidationError):
            adapter.validate_python({"kind": member().kind, "counts": 3})


SPECS: dict[str, Any] = {
    "uniform": Uniform(count=7),
    "popularity": PopularityNegatives(count=7),
    "in_batch": InBatch(),
    "part of the batch": InBatch(count=3),
    "mixed": Mixed(parts=(Uniform(count=3), PopularityNegatives(count=2, exponent=1, smoothing=0), InBatch(count=4))),
}


@pytest.mark.parametrize("name", SPECS)
def test_an_item_is_drawn_as_often_as_expected(name: str) -> None:
    # Over many batches whose targets come as training has them: how often an item is a negative of the first row, whose own
    # target is no negative of it.
    draw, generator, rows, batches = SPECS[name].build(COUNT_I), Generator().manual_seed(1), 12, 1500
    share_I = COUNT_I.double().clamp(min=1)
    share_I[:FIRST_ID] = 0
    drawn_I, expected_I = np.zeros(len(COUNT_I)), np.zeros(len(COUNT_I))
    all_N = torch.arange(FIRST_ID, len(COUNT_I))
    for target_N in torch.multinomial(share_I, rows * batches, replacement=True, generator=generator).view(-1, rows):
        item_S = draw(target_N, generator).item_S
        expected = torch.stack([source.expected(all_N, target_N) for source in draw.sources]).sum(0).numpy()
        own = int(target_N[0])
        drawn_I += np.bincount(item_S[item_S != own].numpy(), minlength=len(COUNT_I))
        expected[own - FIRST_ID] = 0
        expected_I[FIRST_ID:] += expected
    assert drawn_I.sum() == pytest.approx(expected_I.sum(), rel=0.03)
    expected_I *= drawn_I.sum() / expected_I.sum()
    kept = expected_I > 0
    assert set(np.flatnonzero(drawn_I)) <= set(np.flatnonzero(kept))
    assert chisquare(drawn_I[kept], expected_I[kept]).pvalue > 1e-4


def test_expected_counts_by_hand() -> None:
    def counts(spec: Any) -> list[float]:
        return spec.build(COUNT_I)(TARGET_N, Generator().manual_seed(0)).log_expected_N.double().exp().tolist()

    assert counts(Uniform(count=12)) == pytest.approx([2.0] * 8)
    plain = PopularityNegatives(count=108, exponent=1, smoothing=0)  # the six real items have 108 events, item 4 none
    assert counts(plain) == pytest.approx([16, 81, 81, 16, 5, 81, 1, 81])
    # Eight rows, so seven others; item 4 counts as one event: 109.
    assert counts(InBatch()) == pytest.approx([7 * n / 109 for n in (16, 81, 81, 16, 5, 81, 1, 81)])
    assert counts(InBatch(count=2)) == pytest.approx([2 * 7 / 8 * n / 109 for n in (16, 81, 81, 16, 5, 81, 1, 81)])
    both = counts(Mixed(parts=(Uniform(count=12), plain)))
    assert both == pytest.approx([2 + n for n in (16, 81, 81, 16, 5, 81, 1, 81)])  # a sum of counts, not of their logs


def test_counts_of_a_mixture_add_up() -> None:
    mixed = Mixed(parts=(Uniform(count=3), PopularityNegatives(count=4), InBatch(count=5), Uniform(count=6)))
    assert len(mixed.build(COUNT_I)(TARGET_N, Generator()).item_S) == 3 + 4 + 5 + 6


def test_in_batch_takes_the_targets_themselves() -> None:
    assert sorted(InBatch().build(COUNT_I)(TARGET_N, Generator()).item_S.tolist()) == sorted(TARGET_N.tolist())
    some = InBatch(count=3).build(COUNT_I)(TARGET_N, Generator()).item_S.tolist()
    assert len(some) == 3
    assert len(InBatch(count=99).build(COUNT_I)(TARGET_N, Generator()).item_S) == len(TARGET_N)


def test_rare_items_among_a_million_are_drawn_as_often_as_they_should() -> None:
    # One item has nearly all events: in float32 the sums of the rest would not grow by single events.
    count_I = torch.ones(1_000_002, dtype=torch.int64)
    count_I[FIRST_ID] = 10**8
    item_S = (
        PopularityNegatives(count=200_000, exponent=1, smoothing=0).build(count_I)(TARGET_N, Generator().manual_seed(0)).item_S
    )
    rare_S = item_S[item_S > FIRST_ID]
    assert len(rare_S) == pytest.approx(200_000 / 101, rel=0.1)
    assert len(rare_S.unique()) > 0.99 * len(rare_S)
    assert rare_S.double().mean() == pytest.approx(500_000, rel=0.05)


def test_settings_out_of_range_are_refused() -> None:
    adapter = TypeAdapter(SharedNegatives)
    for bad in (
        {"kind": "uniform", "count": 0}, {"kind": "popularity", "exponent": -1}, {"kind": "mixed", "parts": []},
        {"kind": "mixed", "parts": [{"kind": "mixed"}]}, {"kind": "in_batch", "count": 0}, {"kind": "alias"},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)
