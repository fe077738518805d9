"""Shapes: recsys/models/ranker_inputs.py."""

import pytest
import torch
from ranker_cases import DIM, FIELDS, TASKS, ranker_inputs
from torch import nn

from recsys.models.ple import PLE


def says(module: nn.Module, bias: list[float]) -> None:
    with torch.no_grad():
        module.layer.weight.zero_()
        module.layer.bias.copy_(torch.tensor(bias))


def test_by_hand() -> None:
    # The shared expert says 2, the tasks' own 4 and 6; gates with logits 1 for the own and 0 for the shared one weigh them by
    # .7311 and .2689: 4 * .7311 + 2 * .2689 = 3.4621 and 6 * .7311 + 2 * .2689 = 4.9242.
    module = PLE(layers=1, shared_experts=1, own_experts=1, hidden=1).build(FIELDS, DIM, ["click", "buy"])
    [layer] = module.layers
    says(layer.shared, [2.0])
    for t, value in enumerate((4.0, 6.0)):
        says(layer.own[t], [value])
        says(layer.gates[t], [1.0, 0.0])
    with torch.no_grad():
        module.towers.weight.fill_(1)
    assert module(ranker_inputs(1, 1)).flatten().tolist() == pytest.approx([3.4621, 4.9242], abs=1e-4)


def silence(layer: nn.Module) -> None:
    for experts in (layer.shared, *layer.own):
        says(experts, [0.0] * len(experts.layer.bias))


def test_a_second_layer_reads_what_the_first_gave_and_not_the_fields() -> None:
    torch.manual_seed(0)
    module = PLE().build(FIELDS, DIM, TASKS).eval()
    a, b = (module(ranker_inputs(seed=seed)) for seed in (1, 2))
    assert not torch.allclose(a, b)
    silence(module.layers[0])
    a, b = (module(ranker_inputs(seed=seed)) for seed in (1, 2))
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(a, a[:1, :1].expand_as(a))


@pytest.mark.parametrize(("layer", "reached"), [(0, [True, True, True]), (1, [False, True, False])])
def test_own_experts_are_private_in_the_last_layer_and_feed_the_shared_gate_below_it(layer: int, reached: list[bool]) -> None:
    torch.manual_seed(0)
    module, inputs = PLE(layers=2).build(FIELDS, DIM, TASKS).eval(), ranker_inputs()
    before_BCT = module(inputs)
    with torch.no_grad():
        module.layers[layer].own[1].layer.weight += 0.5
    assert [not torch.equal(a, b) for a, b in zip(before_BCT.unbind(-1), module(inputs).unbind(-1), strict=True)] == reached
