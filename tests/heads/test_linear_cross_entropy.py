"""Shapes: N = predictions, D = width, I = rows of the item table."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from recsys.columns import FIRST_ID
from recsys.heads import linear_cross_entropy as module
from recsys.heads.linear_cross_entropy import linear_cross_entropy

N, D, ITEMS = 13, 5, 11


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(N, D, generator=generator, dtype=torch.float64).requires_grad_()
    table_ID = torch.randn(ITEMS, D, generator=generator, dtype=torch.float64).requires_grad_()
    return hidden_ND, table_ID, torch.randint(FIRST_ID, ITEMS, (N,), generator=generator)


def plain(hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor) -> Tensor:
    logits_NI = (hidden_ND @ table_ID.T).index_fill(1, torch.arange(FIRST_ID), -torch.inf)
    return functional.cross_entropy(logits_NI, target_N, reduction="none")


@pytest.mark.parametrize("rows_per_chunk", [1, 4, 12, 13, 1000])
def test_equals_torch_in_value_and_gradient(rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", rows_per_chunk * ITEMS)
    weight_N = torch.linspace(-1, 2, N, dtype=torch.float64)  # every row its own share of the gradient, a negative one too
    found, expected = inputs(), inputs()
    loss_N, plain_N = linear_cross_entropy(*found, first_item=FIRST_ID), plain(*expected)
    (loss_N * weight_N).sum().backward()
    (plain_N * weight_N).sum().backward()
    torch.testing.assert_close(loss_N, plain_N)
    torch.testing.assert_close(found[0].grad, expected[0].grad)
    torch.testing.assert_close(found[1].grad, expected[1].grad)


def test_gradcheck() -> None:
    hidden_ND, table_ID, target_N = inputs()
    assert torch.autograd.gradcheck(
        lambda h, t: linear_cross_entropy(h, t, target_N, first_item=FIRST_ID), (hidden_ND, table_ID)
    )


def test_hand_worked_number() -> None:
    # One prediction over three items with logits 2, 0, 1; the reserved rows would have the highest, 50, and do not count.
    hidden_ND = torch.tensor([[1.0]])
    table_ID = torch.tensor([[50.0], [50.0], [2.0], [0.0], [1.0]])
    loss_N = linear_cross_entropy(hidden_ND, table_ID, torch.tensor([2]), first_item=FIRST_ID)
    assert loss_N.item() == pytest.approx(math.log(1 + math.exp(-2) + math.exp(-1)))
    assert loss_N.item() == pytest.approx(0.4076, abs=1e-4)


def test_reserved_rows_get_no_gradient() -> None:
    hidden_ND, table_ID, target_N = inputs()
    linear_cross_entropy(hidden_ND, table_ID, target_N, first_item=FIRST_ID).sum().backward()
    assert table_ID.grad is not None
    assert (table_ID.grad[:FIRST_ID] == 0).all()
    assert (table_ID.grad[FIRST_ID:] != 0).any(dim=1).all()


def test_no_predictions() -> None:
    _, table_ID, _ = inputs()
    empty_ND = torch.empty(0, D, dtype=torch.float64)
    assert linear_cross_entropy(empty_ND, table_ID, torch.empty(0, dtype=torch.int64), first_item=FIRST_ID).shape == (0,)
