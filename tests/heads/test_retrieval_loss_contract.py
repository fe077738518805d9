"""What every retrieval loss promises; a new member of the union is tested with no edit here."""

from typing import Any, get_args

import pytest
import torch
from torch import Generator, Tensor

from recsys.columns import FIRST_ID
from recsys.heads import RetrievalLoss

MEMBERS = get_args(get_args(RetrievalLoss)[0]) or (get_args(RetrievalLoss)[0],)
N, D, ITEMS = 9, 6, 30


def run(spec: Any, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss_N, the candidates, and the leaves it depends on."""
    data = Generator().manual_seed(1)
    hidden_ND = torch.randn(N, D, generator=data).requires_grad_()
    table_ID = torch.randn(ITEMS, D, generator=data)
    target_N, count_I = torch.randint(FIRST_ID, ITEMS, (N,), generator=data), torch.randint(1, 9, (ITEMS,), generator=data)
    candidate_C = spec.candidates(target_N, count_I, Generator().manual_seed(seed))
    candidate_CD = table_ID[candidate_C].requires_grad_()
    before = [tensor.detach().clone() for tensor in (hidden_ND, candidate_CD, candidate_C, target_N, count_I)]
    loss_N = spec(hidden_ND, candidate_CD, candidate_C, target_N, count_I)
    loss_N.sum().backward()
    for was, tensor in zip(before, (hidden_ND, candidate_CD, candidate_C, target_N, count_I), strict=True):
        assert torch.equal(was, tensor), "an input was changed"
    return loss_N.detach(), candidate_C, hidden_ND, candidate_CD


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
class TestContract:
    def test_one_finite_loss_per_prediction(self, member: Any) -> None:
        loss_N, candidate_C, _, _ = run(member(), seed=0)
        assert loss_N.shape == (N,)
        assert torch.isfinite(loss_N).all()
        assert candidate_C.dtype == torch.int64
        assert ((candidate_C >= 0) & (candidate_C < ITEMS)).all()

    def test_gradient_reaches_hidden_states_and_candidates(self, member: Any) -> None:
        _, _, hidden_ND, candidate_CD = run(member(), seed=0)
        for leaf in (hidden_ND, candidate_CD):
            assert leaf.grad is not None
            assert torch.isfinite(leaf.grad).all()
        assert (hidden_ND.grad != 0).any(dim=1).all()
        assert (candidate_CD.grad != 0).any()

    def test_same_seed_same_result(self, member: Any) -> None:
        first, second = run(member(), seed=4), run(member(), seed=4)
        assert torch.equal(first[1], second[1])
        assert torch.equal(first[0], second[0])

    def test_a_better_target_lowers_the_loss(self, member: Any) -> None:
        spec, target_N, count_I = member(), torch.tensor([5]), torch.ones(ITEMS, dtype=torch.int64)
        candidate_C = spec.candidates(target_N, count_I, Generator().manual_seed(0))
        losses = [
            spec(torch.ones(1, 1), torch.where(candidate_C == 5, score, 0.0)[:, None], candidate_C, target_N, count_I).item()
            for score in (-1.0, 0.0, 1.0, 3.0)
        ]
        assert losses == sorted(losses, reverse=True)
        assert len(set(losses)) == len(losses)

    def test_reads_back_from_its_own_settings(self, member: Any) -> None:
        assert member.model_validate(member().model_dump(mode="json")) == member()
