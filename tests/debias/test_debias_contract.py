"""Every member of the Debias and of the Propensity union, by one contract each. Shapes as in recsys/debias/estimate.py."""

from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from debias_world import World, built
from torch import Tensor

from recsys.columns import ITEM, TRAIN, label
from recsys.debias import Debias, Propensity
from recsys.debias.estimate import Estimate, Pairs, Rows
from recsys.heads.binary import binary_loss

ROWS, TASKS, WIDTH = 24, 2, 6
ESTIMATORS = get_args(get_args(Debias)[0])
PROPENSITIES = get_args(get_args(Propensity)[0])


def rows_for(spec: Any, *, seed: int = 0, even: bool = False) -> Rows:
    """Random rows; with `even` every propensity is 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    logit_BT = normal(ROWS, TASKS).requires_grad_()
    label_BT = (torch.rand(ROWS, TASKS, generator=generator) < 0.5).float()
    label_BT[:3, 0] = torch.nan
    count = ROWS * spec.pairs_per_row
    propensity_B = torch.ones(ROWS) if even else 0.1 + 0.9 * torch.rand(ROWS, generator=generator)
    raw_X = propensity_B.double().numpy()
    has_source = spec.source is not None
    return Rows(
        logit_BT=logit_BT,
        label_BT=label_BT,
        loss_BT=binary_loss(logit_BT, label_BT)[0],
        vector_BV=normal(ROWS, WIDTH),
        propensity_B=propensity_B if has_source else torch.full((ROWS,), torch.nan),
        step=5,
        arm_B=(torch.arange(ROWS) % 3 == 0).float() if spec.arm else None,
        pairs=Pairs(normal(count, TASKS).requires_grad_(), normal(count, WIDTH)) if spec.reads_pairs else None,
        scale=spec.scale(raw_X) if has_source else 1.0,
        floor=spec.floor(raw_X) if has_source else 0.0,
    )


def made(spec: Any, seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    return spec.build(WIDTH, TASKS)


def tensors(value: Any) -> dict[str, Tensor]:
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    found |= {f"terms.{name}": term for name, term in found.pop("terms", {}).items()}
    if isinstance(found.get("pairs"), Pairs):
        found |= {f"pairs.{name}": part for name, part in found.pop("pairs")._asdict().items()}
    return {name: part.detach().clone() for name, part in found.items() if isinstance(part, Tensor)}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, equal_nan=True, msg=name)


def reached(value: Tensor, leaves: list[Tensor]) -> bool:
    """Whether any gradient of it gets to any of the leaves."""
    if not value.requires_grad or not leaves:
        return False
    gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    return any(g is not None and bool(g.any()) for g in gradients)


def logits(rows: Rows) -> list[Tensor]:
    return [rows.logit_BT, *([rows.pairs.logit_PT] if rows.pairs else [])]


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda spec: spec.__name__)
class TestEveryDebiaser:
    def test_shapes_range_and_no_mutation(self, kind: Any) -> None:
        spec = built(kind)
        rows = rows_for(spec)
        before = tensors(rows)
        estimate: Estimate = made(spec)(rows)
        assert_same(tensors(rows), before)
        assert estimate.loss_BT.shape == estimate.weight_BT.shape == (ROWS, TASKS)
        assert not estimate.weight_BT.requires_grad
        assert (estimate.weight_BT >= 0).all()
        assert estimate.weight_BT.sum() > 0
        assert estimate.loss_PT is None or estimate.loss_PT.shape == (ROWS * spec.pairs_per_row, TASKS)
        assert all(torch.isfinite(part).all() for part in tensors(estimate).values())
        assert all(not term.requires_grad and term.ndim == 0 for term in estimate.terms.values())
        assert estimate.loss_BT[:3, 0].tolist() == [0, 0, 0], "a label that does not exist has no loss"

    def test_same_seed_same_answer_however_often(self, kind: Any) -> None:
        spec = built(kind)
        first = made(spec)
        answer = tensors(first(rows_for(spec)))
        first(rows_for(spec, seed=9))
        assert_same(tensors(first(rows_for(spec))), answer)
        assert_same(tensors(made(spec)(rows_for(spec))), answer)

    def test_gradients_stop_where_they_must(self, kind: Any) -> None:
        spec = built(kind)
        rows, module = rows_for(spec), made(spec)
        estimate, own = module(rows), list(module.parameters())
        total = (estimate.loss_BT * estimate.weight_BT).sum()
        total = total if estimate.loss_PT is None else total + estimate.loss_PT.sum()
        assert reached(total, [rows.logit_BT])
        assert not reached(total, own)
        assert (estimate.own is not None) == bool(own)
        if estimate.own is not None:
            assert all(reached(estimate.own, [parameter]) for parameter in own)
            assert not reached(estimate.own, logits(rows))

    def test_the_state_survives_a_round_trip(self, kind: Any) -> None:
        spec = built(kind)
        first, second = made(spec, seed=1), made(spec, seed=2)
        second.load_state_dict(first.state_dict())
        assert_same(tensors(second(rows_for(spec))), tensors(first(rows_for(spec))))

    def test_neutral_settings_give_the_plain_loss(self, kind: Any) -> None:
        spec = kind.neutral()
        if spec is None:
            pytest.skip("has no neutral settings")
        rows = rows_for(spec, even=True)
        estimate = made(spec)(rows)
        torch.testing.assert_close(estimate.loss_BT * estimate.weight_BT, rows.loss_BT)
        assert estimate.loss_PT is None or not estimate.loss_PT.any()

    def test_scale_and_floor_are_of_the_training_rows_alone(self, kind: Any) -> None:
        spec, propensity_X = built(kind), np.linspace(1e-6, 1, 50)
        before = propensity_X.copy()
        assert 0 <= spec.floor(propensity_X) < 1
        assert spec.scale(np.maximum(propensity_X, spec.floor(propensity_X))) > 0
        assert (propensity_X == before).all()

    def test_a_common_factor_of_the_propensities_changes_nothing(self, kind: Any) -> None:
        spec = built(kind)
        if spec.source is None:
            pytest.skip("reads no propensities")
        rows, factor = rows_for(spec), 1e-3
        small_X = factor * rows.propensity_B.double().numpy()
        small = replace(rows, propensity_B=factor * rows.propensity_B, scale=spec.scale(small_X), floor=spec.floor(small_X))
        torch.testing.assert_close(made(spec)(small).weight_BT, made(spec)(rows).weight_BT)


@pytest.mark.parametrize("kind", PROPENSITIES, ids=lambda spec: spec.__name__)
class TestEveryPropensity:
    def test_shape_range_and_determinism(self, kind: Any, world: World) -> None:
        data, spec = world.dataset, built(kind)
        row_X = data.example_rows(TRAIN)
        propensity_X = spec.fit(data, row_X, "click")
        assert propensity_X.shape == row_X.shape
        assert propensity_X.dtype == np.float64
        assert (propensity_X > 0).all()
        assert (propensity_X <= 1).all()
        np.testing.assert_array_equal(propensity_X, spec.fit(data, row_X, "click"))

    def test_it_follows_the_rows_it_is_asked_for(self, kind: Any, world: World) -> None:
        """Half the rows: one answer for each of them, and no larger for rows of the other half."""
        data, spec = world.dataset, built(kind)
        half_X = data.example_rows(TRAIN)[::2]
        item_X, click_X = data.examples[ITEM][half_X], data.examples[label("click")][half_X]
        before = (item_X.copy(), click_X.copy(), half_X.copy())
        assert len(spec.fit(data, half_X, "click")) == len(half_X)
        for old, new in zip(before, (data.examples[ITEM][half_X], data.examples[label("click")][half_X], half_X), strict=True):
            np.testing.assert_array_equal(old, new)
