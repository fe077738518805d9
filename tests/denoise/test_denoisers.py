"""Every member of the Denoiser union, by one contract; then each one's own numbers."""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from recsys.denoise import Denoiser
from recsys.denoise.denoiser import Learned
from recsys.denoise.informative import Informative
from recsys.denoise.personal import Personal
from recsys.denoise.reweighted import Reweighted
from recsys.denoise.self_taught import SelfTaught
from recsys.denoise.truncated import Truncated
from recsys.train.weights import Passes, context, trust
from recsys.weighing import Context, alone

LATE = 10**9
every = pytest.mark.parametrize("spec", get_args(get_args(Denoiser)[0]), ids=lambda spec: spec.__name__)


class Planted(NamedTuple):
    """A log of which it is known which positives are false."""

    feature_BF: Tensor
    label_B: Tensor
    is_noise_B: Tensor


def planted(seed: int = 2, rows: int = 1000) -> Planted:
    generator = torch.Generator().manual_seed(seed)
    feature_BF = torch.randn(rows, 8, generator=generator)
    true_B = (feature_BF[:, :4].sum(1) > 0).float()
    is_noise_B = (true_B == 0) & (torch.rand(rows, generator=generator) < 0.25)
    return Planted(feature_BF, torch.where(is_noise_B, 1.0, true_B), is_noise_B)


def small_model(seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))


def losses(model: nn.Module, log: Planted, step: int, seed: int = 5) -> tuple[Tensor, Context]:
    """loss_B of the log, and the real context of a model that can be asked again."""

    def forward(found: Mapping[str, Tensor]) -> Tensor:
        return binary_cross_entropy_with_logits(model(found["x"])[:, 0], log.label_B, reduction="none")

    found = {"x": log.feature_BF.clone().requires_grad_()}
    passes = Passes(forward, model, found, seed=seed)
    loss_B = forward(found)
    return loss_B, context(passes, loss_B, step=step, group_B=torch.arange(len(loss_B)) // 20)


@every
@pytest.mark.parametrize("step", [0, 10, LATE])
def test_contract(spec: Any, step: int) -> None:
    """Shape, range, no mutation of losses, labels or model, no gradient; same input, same output."""
    torch.manual_seed(1)
    denoise, model, log = spec().build(), small_model(), planted(rows=203)
    log.label_B[:10] = torch.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss_B, here = losses(model, log, step)
    loss_B = loss_B.nan_to_num()
    copy_B, label_B = loss_B.detach().clone(), log.label_B.clone()
    weight_B, own = trust(denoise, "it", loss_B, log.label_B, here)
    assert weight_B.shape == loss_B.shape
    assert not weight_B.requires_grad
    assert torch.equal(weight_B, trust(denoise, "it", loss_B, log.label_B, here)[0])
    assert torch.equal(loss_B.detach(), copy_B)
    assert torch.equal(log.label_B.nan_to_num(9), label_B.nan_to_num(9))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if own is not None:
        own.backward()
        assert all(parameter.grad is None for parameter in model.parameters())
        assert any((parameter.grad != 0).any() for parameter in denoise.parameters())


@every
@pytest.mark.parametrize("step", [0, LATE])
def test_neutral_settings_weigh_all_alike(spec: Any, step: int) -> None:
    loss_B, here = losses(small_model(), planted(rows=100), step)
    weight_B, _ = trust(spec.neutral().build(), "it", loss_B, planted(rows=100).label_B, here)
    assert torch.allclose(weight_B, weight_B[:1].expand_as(weight_B))


@every
def test_a_batch_without_positives_or_with_one_row_trains_on(spec: Any) -> None:
    torch.manual_seed(1)
    for label in (0.0, 1.0):
        for rows in (1, 2, 30):
            loss_B = torch.rand(rows)
            weight_B, _ = trust(spec().build(), "it", loss_B, torch.full((rows,), label), alone(loss_B, step=LATE))
            assert weight_B.sum() > 0


@every
def test_the_state_survives_a_checkpoint(spec: Any) -> None:
    torch.manual_seed(1)
    denoise, log = spec().build(), planted(rows=100)
    loss_B, here = losses(small_model(), log, LATE)
    first, _ = trust(denoise, "it", loss_B, log.label_B, here)
    torch.manual_seed(99)
    again = spec().build()
    if isinstance(denoise, Learned):
        again.load_state_dict(denoise.state_dict())
    assert torch.equal(first, trust(again, "it", loss_B, log.label_B, here)[0])


@every
def test_training_gives_planted_noise_the_lower_mean_weight(spec: Any) -> None:
    """And what is against redundancy gives easy examples the lower one."""
    torch.manual_seed(4)
    denoise, model = spec().build(), small_model()
    helpers = list(denoise.parameters()) if isinstance(denoise, Learned) else []
    optimizer = torch.optim.Adam([{"params": model.parameters()}, {"params": helpers}], lr=0.01)
    for step in range(300):
        log = planted(seed=100 + step, rows=256)
        loss_B, here = losses(model, log, step, seed=step)
        weight_B, own = trust(denoise, "it", loss_B, log.label_B, here)
        optimizer.zero_grad()
        ((loss_B * weight_B).sum() / weight_B.sum() + (0 if own is None else own)).backward()
        optimizer.step()
    log = planted()
    loss_B, here = losses(model, log, LATE)
    weight_B, _ = trust(denoise, "it", loss_B, log.label_B, here)
    is_positive_B = log.label_B == 1
    assert loss_B[log.is_noise_B].mean() > loss_B[is_positive_B & ~log.is_noise_B].mean()
    if spec.against == "noise":
        assert weight_B[log.is_noise_B].mean() < 0.9 * weight_B[is_positive_B & ~log.is_noise_B].mean()
    else:
        easy_B = loss_B < loss_B.median()
        assert weight_B[easy_B].mean() < weight_B[~easy_B].mean()


# The hand-worked losses: logits 2, -1, .5, -2 with labels 1, 1, 0, 0.
LOSS_B = softplus(torch.tensor([-2.0, 1.0, 0.5, -2.0]))
LABEL_B = torch.tensor([1.0, 1.0, 0.0, 0.0])


def test_truncated_by_hand() -> None:
    """The second is half of the positives; the other three average .409311."""
    weight_B = Truncated(max_drop_rate=0.5, ramp_steps=10)(LOSS_B, LABEL_B, alone(LOSS_B, step=10))
    assert weight_B.tolist() == [1, 0, 1, 1]
    assert ((LOSS_B * weight_B).sum() / weight_B.sum()).item() == pytest.approx(0.409311, abs=1e-6)


def test_truncated_ramps_up_and_never_drops_negatives() -> None:
    loss_B, label_B = torch.arange(100.0), torch.tensor([1.0] * 50 + [0.0] * 50)
    spec = Truncated(max_drop_rate=0.2, ramp_steps=100)
    dropped = [int((spec(loss_B, label_B, alone(loss_B, step=step)) == 0).sum()) for step in (0, 50, 100, 1000)]
    assert dropped == [0, 5, 10, 10]
    weight_B = spec(loss_B, label_B, alone(loss_B, step=1000))
    assert weight_B[50:].all()
    assert (weight_B[40:50] == 0).all()


def test_reweighted_by_hand() -> None:
    """.968766 = sigmoid(2) ** .25; the paper's loss, sum / 4, is .488800."""
    weight_B = Reweighted(exponent=0.25)(LOSS_B, LABEL_B, alone(LOSS_B, step=0))
    torch.testing.assert_close(weight_B, torch.tensor([0.968766, 0.720136, 0.783864, 0.968766]), atol=1e-6, rtol=0)
    assert ((weight_B * LOSS_B).sum() / 4).item() == pytest.approx(0.488800, abs=1e-6)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (0.1, [0.952270, 0.047411, 0.000319]),
        (0.5, [0.571197, 0.313480, 0.115323]),
        (1.0, [0.456590, 0.338250, 0.205159]),
    ],
)
def test_personal_by_hand(temperature: float, expected: list[float]) -> None:
    loss_B, ones_B = torch.tensor([0.2, 0.5, 1.0]), torch.ones(3)
    spec = Personal(pool_size=3, temperature=temperature, resample=False)
    weight_B = spec(loss_B, ones_B, alone(loss_B, step=0, group_B=torch.zeros(3, dtype=torch.int64)))
    torch.testing.assert_close(weight_B / 3, torch.tensor(expected), atol=1e-6, rtol=0)


def test_personal_draws_as_often_as_it_should() -> None:
    """One user's pool of three, many times over: 100,000 draws within .005."""
    users = 33_334
    loss_B = torch.tensor([0.2, 0.5, 1.0]).repeat(users)
    group_B = torch.repeat_interleave(torch.arange(users), 3)
    weight_B = Personal(pool_size=3, temperature=0.5)(loss_B, torch.ones(3 * users), alone(loss_B, step=0, group_B=group_B))
    assert torch.equal(weight_B, weight_B.round())
    assert torch.equal(weight_B.view(-1, 3).sum(1), torch.full((users,), 3.0))
    share = weight_B.view(-1, 3).mean(0) / 3
    torch.testing.assert_close(share, torch.tensor([0.571197, 0.313480, 0.115323]), atol=0.005, rtol=0)


def test_personal_keeps_users_and_negatives_apart() -> None:
    """No pool holds two users; one that is not full draws as often as it has members; negatives weigh 1."""
    group_B = torch.tensor([7] * 7 + [3] * 2 + [7, 9])
    label_B = torch.tensor([1.0] * 9 + [0.0, torch.nan])
    loss_B = torch.rand(11, generator=torch.Generator().manual_seed(1))
    for seed in range(20):
        here = alone(loss_B, step=0, group_B=group_B, seed=seed)
        weight_B = Personal(pool_size=5)(loss_B, label_B, here)
        assert weight_B[:7].sum() == 7
        assert weight_B[7:9].sum() == 2
        assert weight_B[9:].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("curve", "temperature", "expected"),
    [
        ("upper", 1.0, [0.123681, 0.203916, 0.336201, 0.336201]),
        ("middle", 1.0, [0.146300, 0.309717, 0.397684, 0.146300]),
        ("extremes", 1.0, [0.336201, 0.203916, 0.123681, 0.336201]),
        ("upper", 0.4, [0.034656, 0.120960, 0.422192, 0.422192]),
    ],
)
def test_informative_by_hand(curve: Any, temperature: float, expected: list[float]) -> None:
    loss_B = torch.tensor([1.0, 2.0, 3.0, 5.0])
    spec = Informative(curve=curve, temperature=temperature, start_step=5)
    weight_B = spec(loss_B, torch.ones(4), alone(loss_B, step=5))
    torch.testing.assert_close(weight_B / 4, torch.tensor(expected), atol=1e-6, rtol=0)
    assert spec(loss_B, torch.ones(4), alone(loss_B, step=4)).tolist() == [1, 1, 1, 1]


def test_informative_with_an_outlier_out_of_the_range() -> None:
    """One loss of 1000 makes all others alike, unless the range leaves it out."""
    loss_B = torch.cat([torch.linspace(0, 1, 99), torch.tensor([1000.0])])
    here = alone(loss_B, step=LATE)
    plain, clipped = (Informative(curve="upper", clip_share=share)(loss_B, torch.ones(100), here) for share in (0.0, 0.02))
    assert plain[:99].max() / plain[:99].min() < 1.01
    assert clipped[:99].max() / clipped[:99].min() > 2


def test_the_slope_is_that_of_a_scalar_model() -> None:
    """loss = (theta - y)^2 / 2 at theta 0 with y 1 and -1: gradients -1 and 1; towards the first judge, the first gains."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    target_B = torch.tensor([1.0, -1.0])

    def forward(found: Mapping[str, Tensor]) -> Tensor:
        return (model(found["x"])[:, 0] - target_B) ** 2 / 2

    found = {"x": torch.ones(2, 1, requires_grad=True)}
    passes = Passes(forward, model, found, seed=1)
    loss_B = forward(found)
    slope_B = passes.slope(loss_B, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(slope_B, torch.tensor([1.0, -1.0]), atol=1e-4, rtol=0)
    assert model.weight.item() == 0
    loss_B.sum().backward()  # the graph has survived
    assert model.weight.grad is not None


def test_self_taught_weighs_alike_until_it_starts() -> None:
    torch.manual_seed(1)
    log = planted(rows=100)
    loss_B, here = losses(small_model(), log, step=4)
    weight_B, own = trust(SelfTaught(start_step=5).build(), "it", loss_B, log.label_B, here)
    assert weight_B.tolist() == [1.0] * 100
    assert own is not None
