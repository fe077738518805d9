"""Every member of the Denoiser union, by one contract; then each one's own numbers."""

from typing import Any, get_args

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from recsys.denoise import Denoiser
from recsys.denoise.truncated import Truncated


def members() -> list[Any]:
    """The specs of the union, whether it has one member or several."""
    inside = [arg for arg in get_args(Denoiser) if arg is not None]
    specs = get_args(inside[0]) or inside[:1] if inside else [Denoiser]
    return list(specs)


@pytest.mark.parametrize("spec", members(), ids=lambda spec: spec.__name__)
def test_contract(spec: Any) -> None:
    """Shape, range, no mutation, no gradient, same input same output, whatever the step."""
    generator = torch.Generator().manual_seed(1)
    loss_B = torch.rand(200, generator=generator, requires_grad=True)
    label_B = torch.randint(0, 2, (200,), generator=generator).float()
    label_B[:10] = torch.nan
    before = (loss_B.detach().clone(), label_B.clone())
    for step in (0, 10, 10**9):
        weight_B = spec()(loss_B, label_B, step)
        assert weight_B.shape == loss_B.shape
        assert not weight_B.requires_grad
        assert torch.isfinite(weight_B).all()
        assert (weight_B >= 0).all()
        assert weight_B.sum() > 0
        assert torch.equal(weight_B, spec()(loss_B, label_B, step))
    assert torch.equal(loss_B.detach(), before[0])
    assert torch.equal(label_B.nan_to_num(9), before[1].nan_to_num(9))


@pytest.mark.parametrize("spec", members(), ids=lambda spec: spec.__name__)
def test_planted_noise_gets_the_lower_mean_weight(spec: Any) -> None:
    """False positives, which a half-trained model scores low, are trusted less than true ones."""
    generator = torch.Generator().manual_seed(2)
    is_noise_B = torch.rand(1000, generator=generator) < 0.2
    logit_B = torch.randn(1000, generator=generator) + torch.where(is_noise_B, -1.0, 1.5)
    label_B = torch.ones(1000)
    loss_B = binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
    weight_B = spec()(loss_B, label_B, 10**9)
    assert weight_B[is_noise_B].mean() < weight_B[~is_noise_B].mean()


def test_truncated_by_hand() -> None:
    """Losses .1269, 1.3133, .9741, .1269 of labels 1, 1, 0, 0: the second is half of the positives, the rest average .4093."""
    logit_B, label_B = torch.tensor([2.0, -1.0, 0.5, -2.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    loss_B = binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
    weight_B = Truncated(max_drop_rate=0.5, ramp_steps=10)(loss_B, label_B, step=10)
    assert weight_B.tolist() == [1, 0, 1, 1]
    assert ((loss_B * weight_B).sum() / weight_B.sum()).item() == pytest.approx(0.409311, abs=1e-6)


def test_truncated_ramps_up_and_never_drops_negatives() -> None:
    loss_B, label_B = torch.arange(100.0), torch.tensor([1.0] * 50 + [0.0] * 50)
    spec = Truncated(max_drop_rate=0.2, ramp_steps=100)
    dropped = [int((spec(loss_B, label_B, step) == 0).sum()) for step in (0, 50, 100, 1000)]
    assert dropped == [0, 5, 10, 10]
    assert spec(loss_B, label_B, 1000)[50:].all()
    assert (spec(loss_B, label_B, 1000)[40:50] == 0).all()
