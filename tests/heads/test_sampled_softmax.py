"""Shapes: N = predictions, S = negatives, D = width, I = rows of the item table."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.columns import FIRST_ID
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.sampled_softmax import SampledSoftmax


def loss(spec: SampledSoftmax, scores: list[float], target: int, negatives: list[int], counts: list[int]) -> Tensor:
    """The loss of one prediction whose hidden state is 1, so that an item's vector is its score."""
    candidate_C = torch.tensor([target, *negatives])
    vector_CD = torch.tensor(scores, dtype=torch.float32)[candidate_C, None].requires_grad_()
    return spec(torch.ones(1, 1), vector_CD, candidate_C, torch.tensor([target]), torch.tensor(counts))


def test_hand_worked_number() -> None:
    # Two uniform draws from two items: an item is expected once among the negatives, so its correction is log 1 = 0.
    spec = SampledSoftmax(num_negatives=2, uniform_share=1)
    found = loss(spec, [0, 0, 1, 0], target=2, negatives=[3, 3], counts=[0, 0, 5, 1])
    assert found.item() == pytest.approx(np.log(1 + 2 * np.exp(-1)))
    # Scores: positive 2, negatives 0 and 1; three uniform draws from three items are neutral too, the third is the target.
    spec = SampledSoftmax(num_negatives=3, uniform_share=1)
    assert loss(spec, [0, 0, 2, 0, 1], 2, [3, 4, 2], [0, 0, 1, 1, 1]).item() == pytest.approx(0.4076, abs=1e-4)


def test_log_q_by_hand() -> None:
    # By popularity alone item 3 has q = 3/4: with two negatives it is expected 1.5 times, item 4 half a time.
    spec = SampledSoftmax(num_negatives=2, uniform_share=0)
    found = loss(spec, [0, 0, 2, 0, 1], 2, [3, 4], [0, 0, 0, 3, 1])
    assert found.item() == pytest.approx(np.log(1 + np.exp(0 - 2) / 1.5 + np.exp(1 - 2) / 0.5), abs=1e-6)


def test_a_negative_equal_to_the_target_changes_nothing() -> None:
    spec = SampledSoftmax(num_negatives=3, uniform_share=0.3)
    counts, scores = [0, 0, 4, 2, 1], [0.0, 0, 9, -1, 2]
    for other in (3, 4):
        hit = loss(spec, scores, 2, [other, 2, 2], counts)
        expected = spec.probability(torch.tensor(counts))[other].item() * 3
        assert hit.item() == pytest.approx(np.log1p(np.exp(scores[other] - 9) / expected), rel=1e-4)


def test_only_accidental_hits_leave_no_loss_and_finite_gradients() -> None:
    spec = SampledSoftmax(num_negatives=2)
    hidden_ND = torch.ones(1, 1, requires_grad=True)
    vector_CD = torch.ones(3, 1, requires_grad=True)
    found = spec(hidden_ND, vector_CD, torch.tensor([2, 2, 2]), torch.tensor([2]), torch.tensor([0, 0, 3, 3]))
    found.sum().backward()
    assert found.item() == 0
    assert hidden_ND.grad is not None
    assert vector_CD.grad is not None
    assert (hidden_ND.grad == 0).all()
    assert (vector_CD.grad == 0).all()


@pytest.mark.parametrize("uniform_share", [0.0, 0.5, 1.0])
def test_approaches_the_full_softmax_as_negatives_grow(uniform_share: float) -> None:
    generator = torch.Generator().manual_seed(3)
    table_ID, hidden_ND = torch.randn(40, 4, generator=generator), torch.randn(30, 4, generator=generator)
    target_N, count_I = torch.randint(FIRST_ID, 40, (30,), generator=generator), torch.arange(1, 41)
    count_I[:FIRST_ID] = 0
    full_N = FullSoftmax()(hidden_ND, table_ID, torch.arange(40), target_N, count_I)
    gaps = []
    for num_negatives in (4, 64, 20_000):
        spec = SampledSoftmax(num_negatives=num_negatives, uniform_share=uniform_share)
        candidate_C = spec.candidates(target_N, count_I, generator)
        gaps.append((spec(hidden_ND, table_ID[candidate_C], candidate_C, target_N, count_I) - full_N).abs().mean().item())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.02


@pytest.mark.parametrize("uniform_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("counts", [[7, 7, 0, 1, 5], [7, 7, 0, 0, 0]])
def test_never_samples_reserved_rows_and_probabilities_sum_to_one(uniform_share: float, counts: list[int]) -> None:
    spec, count_I = SampledSoftmax(num_negatives=2000, uniform_share=uniform_share), torch.tensor(counts)
    probability_I = spec.probability(count_I)
    assert probability_I.sum().item() == pytest.approx(1)
    assert (probability_I[:FIRST_ID] == 0).all()
    drawn_C = spec.candidates(torch.tensor([2]), count_I, torch.Generator().manual_seed(0))
    assert drawn_C[0] == 2
    assert drawn_C.min() >= FIRST_ID
    share_I = torch.bincount(drawn_C[1:], minlength=5) / 2000
    torch.testing.assert_close(share_I, probability_I, atol=0.05, rtol=0)
