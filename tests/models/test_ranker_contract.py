"""What the ranker promises for every history reader, interaction and way of sharing. Shapes: recsys/models/ranker.py."""

import pytest
import torch
from ranker_cases import DIM, TASKS, designs, name, padded_with_junk, ranker_inputs
from torch import Tensor, nn
from torch.nn import functional

from recsys.metrics.classification import auc
from recsys.models.ranker import RankerBody, RankerDesign
from recsys.models.ranker_inputs import RankerInputs


def score(body: RankerBody, inputs: RankerInputs) -> Tensor:
    """A user's vector, the item's and an attribute of each candidate's."""
    user_B1D, attribute_BCD = inputs.field_BCFD[:, :1, 0], inputs.field_BCFD[:, :, 1]
    vectors = [user_B1D, torch.cat([inputs.item_BCD, attribute_BCD], dim=-1)]
    return body(vectors, inputs.item_BCD, inputs.history_BLD, inputs.inside_BL, inputs.behaviour_BL)


def build(design: RankerDesign) -> RankerBody:
    torch.manual_seed(0)
    return RankerBody(design, num_features=3)


@pytest.mark.parametrize("design", designs(), ids=name)
class TestContract:
    def test_candidates_are_independent_and_padding_says_nothing(self, design: RankerDesign) -> None:
        body, inputs = build(design).eval(), ranker_inputs(4, 3)
        together_BCT = score(body, inputs)
        assert together_BCT.shape == (4, 3, len(TASKS))
        assert torch.isfinite(together_BCT).all()  # the first history is empty
        for c in range(3):
            alone = RankerInputs(
                inputs.field_BCFD[:, c : c + 1].clone(), inputs.item_BCD[:, c : c + 1], inputs.history_BLD, inputs.inside_BL,
                inputs.behaviour_BL,
            )  # fmt: skip
            alone.field_BCFD[:, :, 0] = inputs.field_BCFD[:, :1, 0]
            torch.testing.assert_close(score(body, alone)[:, 0], together_BCT[:, c])
        torch.testing.assert_close(score(body, padded_with_junk(inputs)), together_BCT)

    def test_gradient_reaches_every_parameter(self, design: RankerDesign) -> None:
        body, inputs = build(design), ranker_inputs(32, 2)
        for parameter in body.sharing.parameters():
            nn.init.normal_(parameter, std=0.3)
        history_BLD = inputs.history_BLD.requires_grad_()
        (score(body, inputs) * torch.rand(32, 2, len(TASKS))).square().sum().backward()
        for label, parameter in body.named_parameters():
            assert parameter.grad is not None, label
            assert torch.isfinite(parameter.grad).all(), label
            assert parameter.grad.abs().sum() > 0, label
        assert history_BLD.grad is not None
        assert torch.isfinite(history_BLD.grad).all()
        assert (history_BLD.grad[~inputs.inside_BL] == 0).all()


TWO = ("click", "pass")


@pytest.mark.parametrize(
    "design", [d for d in designs(tasks=TWO) if not getattr(d.sharing, "given", None) and d.interaction is None], ids=name
)
def test_two_tasks_that_want_the_opposite_are_both_learned(design: RankerDesign) -> None:
    """Users click what resembles their history and pass on the rest; two items in a hundred are of another mind."""
    generator = torch.Generator().manual_seed(1)
    block_2D = torch.randn(2, DIM, generator=generator)
    user_N, item_N = torch.randint(0, 2, (2, 256), generator=generator)
    history_BLD = block_2D[user_N][:, None] + 0.3 * torch.randn(256, 4, DIM, generator=generator)
    item_BCD = block_2D[item_N][:, None] + 0.3 * torch.randn(256, 1, DIM, generator=generator)
    click_N = ((user_N == item_N) ^ (torch.rand(256, generator=generator) < 0.02)).float()
    label_NT = torch.stack([click_N, 1 - click_N], dim=1)
    inside_BL, behaviour_BL = torch.ones(256, 4, dtype=torch.bool), torch.ones(256, 4, dtype=torch.int64)
    torch.manual_seed(0)
    body = RankerBody(design, num_features=1)
    optimizer = torch.optim.Adam(body.parameters(), lr=0.01)
    for _ in range(80):
        logit_NT = body([item_BCD], item_BCD, history_BLD, inside_BL, behaviour_BL)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logit_NT[:192], label_NT[:192])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for t in range(2):
        assert auc(logit_NT[192:, t].detach().numpy(), label_NT[192:, t].numpy()) > 0.9
