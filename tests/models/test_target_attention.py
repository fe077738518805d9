"""Shapes: B = examples, C = candidates, L = history, D = width."""

import pytest
import torch
from torch import Tensor, nn

from recsys.models.mean_history import MeanHistory
from recsys.models.target_attention import TargetAttention


def by_hand(*, normalised: bool) -> nn.Module:
    """A weight that is the sum of [event, item, event - item, event * item]."""
    module = TargetAttention(hidden=1, normalised=normalised).build(1)
    with torch.no_grad():
        for layer in (module.compare, module.weigh):
            layer.weight.fill_(1)
            layer.bias.zero_()
    return module


def read(module: nn.Module, item: float, history: list[float], length: int) -> float:
    inside_BL = torch.arange(len(history))[None] < length
    return module(torch.tensor([[[float(item)]]]), torch.tensor(history, dtype=torch.float32)[None, :, None], inside_BL).item()


def test_hand_worked_numbers() -> None:
    # Item 2, events 1 and 3: weights 1 + 2 - 1 + 2 = 4 and 3 + 2 + 1 + 6 = 12, so 4 * 1 + 12 * 3 = 40.
    assert read(by_hand(normalised=False), 2, [1, 3], 2) == pytest.approx(40)
    # By softmax e^-8 / (1 + e^-8) = .000335 of the first: 3 - 2 * .000335 = 2.99933.
    assert read(by_hand(normalised=True), 2, [1, 3], 2) == pytest.approx(2.99933, abs=1e-5)


@pytest.mark.parametrize("normalised", [False, True])
def test_padding_weighs_nothing_and_an_empty_history_is_zero(normalised: bool) -> None:
    module = by_hand(normalised=normalised)
    assert read(module, 2, [1, 3, 50], 2) == pytest.approx(read(module, 2, [1, 3], 2))
    assert read(module, 2, [50, 50], 0) == 0


def test_repeated_events_count_unless_normalised() -> None:
    assert read(by_hand(normalised=False), 2, [3, 3], 2) == pytest.approx(2 * read(by_hand(normalised=False), 2, [3], 1))
    assert read(by_hand(normalised=True), 2, [3, 3], 2) == pytest.approx(read(by_hand(normalised=True), 2, [3], 1))


def naive(module: nn.Module, item_BCD: Tensor, history_BLD: Tensor) -> Tensor:
    """The layer on the four parts joined."""
    item_BCLD = item_BCD[:, :, None].expand(-1, -1, history_BLD.shape[1], -1)
    event_BCLD = history_BLD[:, None].expand_as(item_BCLD)
    joined = torch.cat([event_BCLD, item_BCLD, event_BCLD - item_BCLD, event_BCLD * item_BCLD], dim=-1)
    return (module.weigh(module.activation(module.compare(joined))) * event_BCLD).sum(2)


def test_the_layer_is_that_over_the_four_parts_joined() -> None:
    torch.manual_seed(0)
    module, item_BCD, history_BLD = TargetAttention(hidden=5).build(4), torch.randn(2, 3, 4), torch.randn(2, 6, 4)
    found = module(item_BCD, history_BLD, torch.ones(2, 6, dtype=torch.bool))
    torch.testing.assert_close(found, naive(module, item_BCD, history_BLD))


def test_the_mean_is_over_real_events_and_the_same_for_all_candidates() -> None:
    module = MeanHistory().build(1)
    assert read(module, 2, [1, 3, 50], 2) == 2
    assert read(module, 2, [50], 0) == 0
    assert module(torch.ones(2, 7, 4), torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)).shape == (2, 1, 4)
