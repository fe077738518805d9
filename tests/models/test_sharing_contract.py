"""What every way of sharing promises; a new member of the union is tested with no edit here.

Shapes: recsys/models/ranker_inputs.py.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from ranker_cases import DIM, FIELDS, SHARINGS, TASKS, name, padded_with_junk, ranker_inputs
from torch import Tensor, nn

from recsys.models.mixture import Gate
from recsys.models.mmoe import MMoE
from recsys.models.ranker_inputs import RankerInputs


def build(spec: Any, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return spec.build(FIELDS, DIM, TASKS)


def one(inputs: RankerInputs, b: int, c: int) -> RankerInputs:
    """Candidate c of request b alone."""
    per_candidate = {key: getattr(inputs, key)[b : b + 1, c : c + 1] for key in ("field_BCFD", "item_BCD")}
    per_request = {key: getattr(inputs, key)[b : b + 1] for key in ("history_BLD", "inside_BL", "behaviour_BL")}
    return RankerInputs(**per_candidate, **per_request)


def gradients(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize("spec", SHARINGS, ids=name)
class TestContract:
    @pytest.mark.parametrize(("batch", "candidates"), [(1, 1), (4, 1), (2, 5)])
    def test_shape(self, spec: Any, batch: int, candidates: int) -> None:
        logit_BCT = build(spec)(ranker_inputs(batch, candidates))
        assert logit_BCT.shape == (batch, candidates, len(TASKS))
        assert torch.isfinite(logit_BCT).all()

    def test_requests_and_candidates_do_not_mix(self, spec: Any) -> None:
        module, inputs = build(spec).eval(), ranker_inputs(3, 4)
        together_BCT = module(inputs)
        for b in range(3):
            for c in range(4):
                torch.testing.assert_close(module(one(inputs, b, c))[0, 0], together_BCT[b, c])

    def test_padding_never_changes_a_logit(self, spec: Any) -> None:
        module, inputs = build(spec).eval(), ranker_inputs()
        torch.testing.assert_close(module(padded_with_junk(inputs)), module(inputs))

    def test_gradient_reaches_every_parameter_and_the_fields(self, spec: Any) -> None:
        module, inputs = build(spec), ranker_inputs(64, 2)
        for parameter in module.parameters():  # nothing hides behind a layer that begins at zero
            nn.init.normal_(parameter, std=0.3)
        inputs.field_BCFD.requires_grad_()
        (module(inputs) * torch.rand(64, 2, len(TASKS))).square().sum().backward()
        for label, parameter in module.named_parameters():
            assert parameter.grad is not None, label
            assert torch.isfinite(parameter.grad).all(), label
            assert parameter.grad.abs().sum() > 0, label
        assert inputs.field_BCFD.grad is not None

    def test_an_empty_history_is_finite_in_value_and_gradient(self, spec: Any) -> None:
        module, inputs = build(spec), ranker_inputs(1)
        assert not inputs.inside_BL.any()
        history_BLD = inputs.history_BLD.requires_grad_()
        logit_BCT = module(inputs)
        logit_BCT.sum().backward()
        assert torch.isfinite(logit_BCT).all()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
        assert history_BLD.grad is None or torch.isfinite(history_BLD.grad).all()

    def test_the_loss_of_one_task_alone_reaches_a_task_parameter(self, spec: Any) -> None:
        """Some hold a row for each task: no element may have a gradient from two tasks."""
        module, inputs = build(spec), ranker_inputs(16)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
        own = module.task_parameters()
        assert {id(p) for p in own} < {id(p) for p in module.parameters()} or name(spec) == "esmm"  # there every tower is apart
        assert own
        logit_BCT = module(inputs)
        per_task = [gradients(logit_BCT[..., t].square().sum(), own) for t in range(len(TASKS))]
        for reached in zip(*per_task, strict=True):
            assert (torch.stack([g != 0 for g in reached]).sum(0) <= 1).all()
            assert sum(float(g.abs().sum()) for g in reached) > 0

    def test_one_task(self, spec: Any) -> None:
        lone = spec.model_copy(update={"given": {}}) if hasattr(spec, "given") else spec
        assert lone.build(FIELDS, DIM, ("click",))(ranker_inputs()).shape == (4, 3, 1)

    def test_same_seed_same_module(self, spec: Any) -> None:
        assert torch.equal(*(build(spec, seed=3)(ranker_inputs()) for _ in range(2)))


def simple(field_F: list[float]) -> RankerInputs:
    """One example whose fields have one number each."""
    field_BCFD = torch.tensor(field_F)[None, None, :, None]
    return RankerInputs(field_BCFD, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.bool))


def test_mmoe_by_hand() -> None:
    # Two experts that say 2 and 4, one gate with logits 1 and 0: weights .7311 and .2689, so 2 * .7311 + 4 * .2689 = 2.5379.
    module = MMoE(experts=2, hidden=1).build(1, 1, ["click"])
    with torch.no_grad():
        module.experts.layer.weight.zero_()
        module.experts.layer.bias.copy_(torch.tensor([2.0, 4.0]))
        module.gate.layer.weight.zero_()
        module.gate.layer.bias.copy_(torch.tensor([1.0, 0.0]))
        module.towers.weight.fill_(1)
    assert module(simple([9.0])).item() == pytest.approx(2.5379, abs=1e-4)


def test_mmoe_tasks_have_their_own_gates() -> None:
    module, inputs = build(MMoE(experts=3, hidden=4)), ranker_inputs(1, 1)
    x_F = inputs.field_BCFD.flatten()
    gate_TX = module.gate.layer(x_F).view(len(TASKS), 3).softmax(-1)
    expert_XH = module.experts.layer(x_F).relu().view(3, 4)
    mixed_TH = torch.stack([sum(w * e for w, e in zip(gate, expert_XH, strict=True)) for gate in gate_TX])
    expected_T = (mixed_TH * module.towers.weight).sum(1) + module.towers.bias
    torch.testing.assert_close(module(inputs)[0, 0], expected_T)


def test_entropy_tells_an_even_gate_from_a_collapsed_one() -> None:
    gate = Gate(2, experts=4, names=["even", "collapsed"])
    with torch.no_grad():
        gate.layer.weight.zero_()
        gate.layer.bias.copy_(torch.tensor([0.0, 0, 0, 0, 50, 0, 0, 0]))
    weight_BCGX = gate(torch.randn(5, 3, 2))
    torch.testing.assert_close(weight_BCGX.sum(-1), torch.ones(5, 3, 2))
    assert gate.entropy_G.tolist() == pytest.approx([1.3863, 0.0], abs=1e-4)  # log 4
    before = gate.entropy_G.clone()
    with torch.no_grad():
        gate.layer.bias.zero_()
    gate.eval()(torch.randn(5, 3, 2))
    assert torch.equal(gate.entropy_G, before)  # kept while training only


def test_only_what_reads_behaviours_asks_for_them() -> None:
    for spec in SHARINGS:
        inputs = ranker_inputs()
        without = replace(inputs, behaviour_BL=None)
        if spec.reads_behaviours:
            with pytest.raises(AssertionError, match="not asked for behaviours"):
                build(spec)(without)
        else:
            torch.testing.assert_close(build(spec)(without), build(spec)(inputs))
