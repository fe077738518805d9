"""Shapes: N = predictions, S = negatives, D = width, I = rows of the item table."""

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from recsys.columns import FIRST_ID
from recsys.heads.accidental_hits import mask_hits
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.sampled_softmax import SampledSoftmax
from recsys.sample import InBatch, Mixed, PopularityNegatives, Uniform

ITEMS, D = 40, 4
COUNT_I = torch.arange(10, 10 + 3 * ITEMS, 3)  # some items four to ten times as popular as others


def loss(spec: SampledSoftmax, positive: float, negatives: list[float], expected: list[float], own: float = 1.0) -> float:
    expected_S = torch.tensor(expected, dtype=torch.float32).log()
    found = spec(
        torch.tensor([float(positive)]),
        torch.tensor([negatives], dtype=torch.float32),
        torch.tensor([own]).log(),
        expected_S,
        9,
    )
    return float(found.item())


def test_hand_worked_numbers() -> None:
    # Each negative expected once: plain sampled cross-entropy, log(1 + e^-2 + e^-1).
    assert loss(SampledSoftmax(), 2, [0, 1], [1, 1]) == pytest.approx(0.4076, abs=1e-4)
    # Expected 1.5 times and half a time: e^0 / 1.5 + e^1 / 0.5 beside e^2.
    expected = math.log((math.e**2 + 1 / 1.5 + math.e / 0.5) / math.e**2)
    assert loss(SampledSoftmax(), 2, [0, 1], [1.5, 0.5], own=0.25) == pytest.approx(expected, abs=1e-6)


def test_corrected_target_by_hand() -> None:
    # A target expected a quarter of a time stands for four of itself: e^2 / 0.25 = 29.56 against 1 + e.
    own = 4 * math.e**2
    expected = math.log((own + 1 + math.e) / own)
    assert loss(SampledSoftmax(correct_target=True), 2, [0, 1], [1, 1], own=0.25) == pytest.approx(expected, abs=1e-6)


def test_extreme_logits() -> None:
    assert loss(SampledSoftmax(), 80, [-80, -80], [1, 1]) == 0
    assert loss(SampledSoftmax(), -80, [80, -80], [1, 1]) == pytest.approx(160)
    assert loss(SampledSoftmax(), 0, [-20, -torch.inf], [1, 1]) == pytest.approx(math.exp(-20), rel=1e-4)  # not rounded to 0


def estimate(sampler: Any, spec: SampledSoftmax, rows: int) -> tuple[float, float]:
    """How far loss and gradient by the item table are from the full softmax, over the first rows of a batch.

    The targets are drawn as training has them.
    """
    generator = Generator().manual_seed(3)
    table_ID = torch.randn(ITEMS, D, generator=generator).requires_grad_()
    all_N = torch.multinomial(share(COUNT_I), rows, replacement=True, generator=generator)
    drawn = sampler.build(COUNT_I)(all_N, generator)
    target_N, hidden_ND = all_N[:150], torch.randn(150, D, generator=generator)[:rows]
    negative_NS = mask_hits((hidden_ND @ table_ID.T)[:, drawn.item_S], drawn.item_S, target_N)
    positive_N = (hidden_ND * table_ID[target_N]).sum(1)
    loss_N = spec(positive_N, negative_NS, drawn.log_expected_N[:150], drawn.log_expected_S, ITEMS - FIRST_ID)
    full_N = FullSoftmax()(hidden_ND, table_ID, target_N)
    grad_ID, full_ID = (torch.autograd.grad(each.mean(), table_ID)[0] for each in (loss_N, full_N))
    return (loss_N - full_N).abs().mean().item(), ((grad_ID - full_ID).norm() / full_ID.norm()).item()


def share(count_I: Tensor) -> Tensor:
    return count_I.double().index_fill(0, torch.arange(FIRST_ID), 0)


SAMPLERS = {
    "uniform": lambda count: (Uniform(count=count), 200),
    "popularity": lambda count: (PopularityNegatives(count=count), 200),
    "popularity without smoothing": lambda count: (PopularityNegatives(count=count, exponent=1, smoothing=0), 200),
    "in_batch": lambda count: (InBatch(), count),
    "part of the batch": lambda count: (InBatch(count=count // 2), count),
    "mixed": lambda count: (Mixed(parts=(Uniform(count=count // 4), PopularityNegatives(count=count // 4), InBatch())), count),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_approaches_the_full_softmax_as_negatives_grow(name: str) -> None:
    # In loss and in gradient, whatever the distribution: only the right expected counts do that.
    gaps = [estimate(sampler, SampledSoftmax(), rows) for sampler, rows in map(SAMPLERS[name], (16, 256, 8000))]
    for first, second, last in zip(*gaps, strict=True):
        assert first > second > last
    assert gaps[-1][0] < 0.05
    assert gaps[-1][1] < 0.06


def test_a_corrected_target_does_not() -> None:
    exact, corrected = (estimate(InBatch(), SampledSoftmax(correct_target=c), rows=8000) for c in (False, True))
    assert corrected[0] > 10 * exact[0]
    assert corrected[1] > exact[1]


@pytest.mark.parametrize("name", ["uniform", "popularity", "in_batch", "mixed"])
def test_the_sum_over_small_sets_is_right_on_average(name: str) -> None:
    # sum exp(logit) / expected over the draws that are not the target averages to the sum over all items but the target.
    score_I = torch.linspace(-1, 1, ITEMS)
    rest_I = score_I[FIRST_ID:].exp().sum() - score_I.exp()
    sampler, rows = SAMPLERS[name](16)[0], 16
    draw, generator, errors = sampler.build(COUNT_I), Generator().manual_seed(0), []
    for target_N in torch.multinomial(share(COUNT_I), rows * 1500, replacement=True, generator=generator).view(-1, rows):
        drawn = draw(target_N, generator)
        logit_NS = mask_hits(score_I[drawn.item_S].expand(rows, -1), drawn.item_S, target_N)
        errors.append((logit_NS - drawn.log_expected_S).exp().sum(1) / rest_I[target_N] - 1)
    assert abs(torch.cat(errors).mean()) < 0.015  # N where N - 1 is right would be 0.0625 off
