"""What every way of sharing promises; a new member of the union is tested with no edit here. F = input width."""

from typing import Any, get_args

import pytest
import torch
from torch.nn import functional

from recsys.models import Sharing
from recsys.models.mmoe import MMoE

MEMBERS = get_args(get_args(Sharing)[0]) or (get_args(Sharing)[0],)
F, TASKS = 6, 3


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
class TestContract:
    @pytest.mark.parametrize("leading", [(), (4,), (4, 1), (2, 5)])
    def test_shape(self, member: Any, leading: tuple[int, ...]) -> None:
        spec = member()
        task_TH = spec.build(F, TASKS)(torch.randn(*leading, F))
        assert task_TH.shape == (*leading, TASKS, spec.hidden)
        assert torch.isfinite(task_TH).all()

    def test_rows_do_not_mix(self, member: Any) -> None:
        module, x_BF = member().build(F, TASKS).eval(), torch.randn(5, F)
        for row in range(5):
            torch.testing.assert_close(module(x_BF)[row], module(x_BF[row]))

    def test_gradient_reaches_every_parameter_and_the_input(self, member: Any) -> None:
        torch.manual_seed(0)
        module, x_BF = member().build(F, TASKS), torch.randn(64, F, requires_grad=True)
        (module(x_BF) * torch.rand(64, TASKS, 1)).square().sum().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        assert x_BF.grad is not None

    def test_same_seed_same_module(self, member: Any) -> None:
        outputs = []
        for _ in range(2):
            torch.manual_seed(3)
            outputs.append(member().build(F, TASKS)(torch.ones(F)))
        assert torch.equal(*outputs)


def test_mmoe_by_hand() -> None:
    # Two experts that say 2 and 4, one gate with logits 1 and 0: weights .7311 and .2689, so 2 * .7311 + 4 * .2689 = 2.5379.
    module = MMoE(experts=2, hidden=1).build(1, 1)
    with torch.no_grad():
        module.expert[0].weight.zero_()
        module.expert[0].bias.copy_(torch.tensor([2.0, 4.0]))
        module.gate.weight.zero_()
        module.gate.bias.copy_(torch.tensor([1.0, 0.0]))
    assert module(torch.tensor([9.0])).item() == pytest.approx(2.5379, abs=1e-4)


def test_mmoe_gates_sum_to_one() -> None:
    module, x_BF = MMoE(experts=4, hidden=2).build(F, TASKS), torch.randn(7, F)
    with torch.no_grad():  # experts that all say 1: a mixture of them is the sum of the gate's weights
        module.expert[0].weight.zero_()
        module.expert[0].bias.fill_(1)
    torch.testing.assert_close(module(x_BF), torch.ones(7, TASKS, 2))


def test_mmoe_tasks_have_their_own_gates() -> None:
    torch.manual_seed(0)
    module, x_F = MMoE(experts=3, hidden=4).build(F, TASKS), torch.randn(F)
    gate_TX = module.gate(x_F).view(TASKS, 3).softmax(-1)
    expert_XH = functional.relu(module.expert[0](x_F)).view(3, 4)
    torch.testing.assert_close(
        module(x_F), torch.stack([sum(w * e for w, e in zip(gate, expert_XH, strict=True)) for gate in gate_TX])
    )
