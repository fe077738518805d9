"""What every retrieval loss promises; a new member of the union is tested with no edit here.

Shapes: N = predictions, S = negatives, D = width, I = rows of the item table.
"""

from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Generator, Tensor

from recsys.columns import FIRST_ID
from recsys.heads import RetrievalLoss, SampledLoss
from recsys.heads.accidental_hits import mask_hits
from recsys.heads.lambda_pairs import LambdaPairs
from recsys.sample import Uniform

MEMBERS = get_args(get_args(RetrievalLoss)[0])
SAMPLED = [member for member in MEMBERS if member.sampled]
N, D, ITEMS = 9, 6, 30


def losses(spec: Any, hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, seed: int = 0) -> Tensor:
    """loss_N, as training computes it."""
    if not spec.sampled:
        return spec(hidden_ND, table_ID, target_N)
    count_I = torch.ones(len(table_ID), dtype=torch.int64)
    drawn = Uniform(count=12).build(count_I)(target_N, Generator().manual_seed(seed))
    positive_N = (hidden_ND * table_ID[target_N]).sum(1)
    negative_NS = mask_hits(hidden_ND @ table_ID[drawn.item_S].T, drawn.item_S, target_N)
    return spec(positive_N, negative_NS, drawn.log_expected_N, drawn.log_expected_S, ITEMS - FIRST_ID)


def inputs(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    data = Generator().manual_seed(1)
    hidden_ND = torch.randn(N, D, generator=data).requires_grad_()
    table_ID = (scale * torch.randn(ITEMS, D, generator=data)).requires_grad_()
    return hidden_ND, table_ID, torch.randint(FIRST_ID, ITEMS, (N,), generator=data)


def test_the_union_and_its_sampled_part_agree() -> None:
    assert set(get_args(SampledLoss)) == set(SAMPLED)
    assert len({member().kind for member in MEMBERS}) == len(MEMBERS)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
class TestContract:
    @pytest.mark.parametrize("scale", [0.0, 1.0, 80.0])
    def test_one_finite_loss_per_prediction_and_finite_gradients(self, member: Any, scale: float) -> None:
        hidden_ND, table_ID, target_N = inputs(scale)
        before = [tensor.detach().clone() for tensor in (hidden_ND, table_ID, target_N)]
        loss_N = losses(member(), hidden_ND, table_ID, target_N)
        loss_N.sum().backward()
        assert loss_N.shape == (N,)
        assert loss_N.dtype == torch.float32
        assert torch.isfinite(loss_N).all()
        assert (loss_N >= 0).all()
        for was, tensor in zip(before, (hidden_ND, table_ID, target_N), strict=True):
            assert torch.equal(was, tensor), "an input was changed"
        for leaf in (hidden_ND, table_ID):
            assert leaf.grad is not None
            assert torch.isfinite(leaf.grad).all()

    def test_gradient_reaches_every_row_and_descends(self, member: Any) -> None:
        hidden_ND, table_ID, target_N = inputs()
        loss_N = losses(member(), hidden_ND, table_ID, target_N)
        loss_N.mean().backward()
        assert hidden_ND.grad is not None
        assert table_ID.grad is not None
        assert (hidden_ND.grad != 0).any(dim=1).all()
        assert (table_ID.grad[target_N] != 0).any(dim=1).all()
        assert (table_ID.grad[:FIRST_ID] == 0).all(), "a reserved row was trained"
        lower_N = losses(member(), hidden_ND - 0.1 * hidden_ND.grad, table_ID - 0.1 * table_ID.grad, target_N)
        assert lower_N.mean() < loss_N.mean()

    def test_each_row_has_its_own_loss(self, member: Any) -> None:
        # A row's hidden state moves no other row's loss, so weights by row compose.
        hidden_ND, table_ID, target_N = inputs()
        loss_N = losses(member(), hidden_ND, table_ID, target_N)
        moved_ND = hidden_ND.detach().clone()
        moved_ND[3] += 1
        other_N = losses(member(), moved_ND, table_ID, target_N)
        changed_N = (loss_N - other_N).abs() > 1e-5
        assert changed_N.tolist() == [row == 3 for row in range(N)]

    def test_a_better_target_lowers_the_loss(self, member: Any) -> None:
        found, slopes = [], []
        for score in (-80.0, -1.0, 0.0, 1.0, 3.0):
            table_I1 = torch.linspace(-0.5, 0.5, ITEMS)[:, None]
            table_I1[5] = score
            loss = losses(member(), torch.ones(1, 1), table_I1.requires_grad_(), torch.tensor([5]))
            slopes.append(torch.autograd.grad(loss.sum(), table_I1)[0][5].item())
            found.append(loss.item())
        assert max(slopes) < 0
        if member is not LambdaPairs:  # whose weights jump where a rank changes
            assert found == sorted(found, reverse=True)
            assert len(set(found)) == len(found)

    def test_reads_back_from_its_own_settings_and_refuses_others(self, member: Any) -> None:
        adapter = TypeAdapter(RetrievalLoss)
        assert adapter.validate_python(member().model_dump(mode="json")) == member()
        with pytest.raises(ValidationError):
            adapter.validate_python({"kind": member().kind, "num_negative": 3})


@pytest.mark.parametrize("member", SAMPLED, ids=lambda member: member.__name__)
class TestSampled:
    def test_hits_alone_leave_nothing_to_push_apart(self, member: Any) -> None:
        positive_N, raw_NS = torch.tensor([1.0, 1.0], requires_grad=True), torch.ones(2, 3, requires_grad=True)
        negative_NS = mask_hits(raw_NS, torch.tensor([4, 4, 4]), torch.tensor([4, 5]))
        zeros_N, zeros_S = torch.zeros(2), torch.zeros(3)
        member()(positive_N, negative_NS, zeros_N, zeros_S, 10).sum().backward()
        assert raw_NS.grad is not None
        assert positive_N.grad is not None
        assert (raw_NS.grad[0] == 0).all()
        assert (raw_NS.grad[1] > 0).all()
        assert torch.isfinite(positive_N.grad).all()
        assert positive_N.grad[1] < 0

    def test_a_hit_counts_as_a_negative_that_is_not_there(self, member: Any) -> None:
        negative_NS, expected_S = torch.tensor([[0.3, -1.0, 0.7]]), torch.tensor([0.1, -0.4, 0.2])
        hit_NS = mask_hits(negative_NS, torch.tensor([3, 7, 9]), torch.tensor([7]))
        kept_S = torch.tensor([0, 2])
        positive_N, expected_N = torch.tensor([0.5]), torch.tensor([-0.3])
        hit_N = member()(positive_N, hit_NS, expected_N, expected_S, 50)
        torch.testing.assert_close(hit_N, member()(positive_N, negative_NS[:, kept_S], expected_N, expected_S[kept_S], 50))
        assert not torch.allclose(hit_N, member()(positive_N, negative_NS, expected_N, expected_S, 50))

    def test_order_of_the_negatives_does_not_matter(self, member: Any) -> None:
        data = Generator().manual_seed(2)
        positive_N, negative_NS, expected_S = (torch.randn(*shape, generator=data) for shape in ((4,), (4, 7), (7,)))
        order_S = torch.randperm(7, generator=data)
        first = member()(positive_N, negative_NS, torch.zeros(4), expected_S, 40)
        torch.testing.assert_close(
            first, member()(positive_N, negative_NS[:, order_S], torch.zeros(4), expected_S[order_S], 40)
        )


def test_mask_hits() -> None:
    logit_NS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    masked = mask_hits(logit_NS, torch.tensor([2**24 + 1, 9, 2**24 + 1]), torch.tensor([2**24 + 1, 2**24]))  # alike in float32
    assert masked.tolist() == [[-torch.inf, 2.0, -torch.inf], [4.0, 5.0, 6.0]]
