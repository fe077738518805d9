"""Shapes: N = predictions, D = width, I = rows of the item table."""

import math
import subprocess
import sys

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


EVEN, UNEVEN = torch.full((N,), 0.3, dtype=torch.float64), torch.linspace(-1, 2, N, dtype=torch.float64)


@pytest.mark.parametrize("rows_per_chunk", [1, 4, 12, 13, 1000])
@pytest.mark.parametrize("weight_N", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("even", [True, False])
def test_equals_torch_in_value_and_gradient(
    even: bool, weight_N: Tensor, rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", rows_per_chunk * (ITEMS - FIRST_ID))
    monkeypatch.setattr(module, "MIN_ROWS", 1)
    found, expected = inputs(), inputs()
    loss_N, plain_N = linear_cross_entropy(*found, first_item=FIRST_ID, even=even), plain(*expected)
    (loss_N * weight_N).sum().backward()
    (plain_N * weight_N).sum().backward()
    torch.testing.assert_close(loss_N, plain_N)
    torch.testing.assert_close(found[0].grad, expected[0].grad)
    torch.testing.assert_close(found[1].grad, expected[1].grad)


@pytest.mark.parametrize("even", [True, False])
def test_gradcheck(even: bool) -> None:
    hidden_ND, table_ID, target_N = inputs()
    for reduce in (torch.mean, lambda loss_N: loss_N * UNEVEN):
        assert torch.autograd.gradcheck(
            lambda h, t, reduce=reduce: reduce(linear_cross_entropy(h, t, target_N, first_item=FIRST_ID, even=even)),
            (hidden_ND, table_ID),
            nondet_tol=1e-12,  # the second backward pass scales before it sums, the first after
        )


def test_a_second_backward_pass_finds_the_same() -> None:
    hidden_ND, table_ID, target_N = inputs()
    loss = linear_cross_entropy(hidden_ND, table_ID, target_N, first_item=FIRST_ID).mean()
    first = torch.autograd.grad(loss, (hidden_ND, table_ID), retain_graph=True)
    kept = [grad.clone() for grad in first]
    second = torch.autograd.grad(3 * loss, (hidden_ND, table_ID))
    for a, b, c in zip(first, kept, second, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(3 * a, c)


def test_only_what_is_needed_is_kept() -> None:
    hidden_ND, table_ID, target_N = inputs()
    with torch.no_grad():
        assert not linear_cross_entropy(hidden_ND, table_ID, target_N, first_item=FIRST_ID).requires_grad
    frozen_ID = table_ID.detach()
    linear_cross_entropy(hidden_ND, frozen_ID, target_N, first_item=FIRST_ID).mean().backward()
    assert hidden_ND.grad is not None
    assert frozen_ID.grad is None


@pytest.mark.parametrize("scale", [1.0, 80.0])
def test_float32_at_extreme_logits(scale: float) -> None:
    hidden_ND = torch.tensor([[scale], [-scale]], requires_grad=True)
    table_ID = torch.tensor([[0.0], [0.0], [1.0], [-1.0], [0.5]], requires_grad=True)
    target_N = torch.tensor([2, 2])
    loss_N = linear_cross_entropy(hidden_ND, table_ID, target_N, first_item=FIRST_ID)
    loss_N.mean().backward()
    expected_N = plain(hidden_ND.detach().double(), table_ID.detach().double(), target_N)
    torch.testing.assert_close(loss_N.double(), expected_N, rtol=1e-6, atol=1e-6)
    assert hidden_ND.grad is not None
    assert table_ID.grad is not None
    assert torch.isfinite(hidden_ND.grad).all()
    assert torch.isfinite(table_ID.grad).all()


PEAK = """
import resource, sys, torch
from recsys.heads.linear_cross_entropy import linear_cross_entropy
items, rows, width = map(int, sys.argv[1:])
hidden = torch.randn(rows, width, requires_grad=True)
table = (0.02 * torch.randn(items, width)).requires_grad_()
target = torch.randint(2, items, (rows,))
linear_cross_entropy(hidden[:2], table[:50], target[:2] % 40 + 2, first_item=2).mean().backward()  # libraries' own memory
table.grad = None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear_cross_entropy(hidden, table, target, first_item=2).mean().backward()
assert torch.isfinite(table.grad).all() and (table.grad[2:] != 0).any(dim=1).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def peak_bytes(items: int, rows: int, width: int) -> int:
    """What one forward and backward pass adds to the peak of a process that holds the inputs."""
    command = [sys.executable, "-c", PEAK, str(items), str(rows), str(width)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_memory_is_one_table_and_one_chunk() -> None:
    items, width = 100_002, 32
    table, chunk = 4 * items * width, 4 * 64 * items
    assert peak_bytes(items, 1024, width) < 1.3 * (table + chunk) + 16e6  # 66 MB; all logits: 410 MB


@pytest.mark.slow
def test_a_million_items_and_4096_predictions() -> None:
    assert peak_bytes(1_000_002, 4096, 64) < 700e6  # all logits: 16.4 GB; table's gradient and a chunk: 512 MB


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


@pytest.mark.parametrize("kept", [0, 300, 10**9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weights_that_come_late(monkeypatch: pytest.MonkeyPatch, kept: int, dtype: torch.dtype) -> None:
    """Of chunks that are kept, of some, or of none: the gradient of the weighted sum is torch's, at a second pass too."""
    monkeypatch.setattr(module, "KEPT_LOGITS", kept)
    monkeypatch.setattr(module, "CHUNK_LOGITS", 100)
    monkeypatch.setattr(module, "MIN_ROWS", 3)
    generator = torch.Generator().manual_seed(1)
    hidden_ND = torch.randn(40, 8, dtype=dtype, generator=generator, requires_grad=True)
    table_ID = torch.randn(25, 8, dtype=dtype, generator=generator, requires_grad=True)
    target_N = torch.randint(2, 25, (40,), generator=generator)
    loss_N = linear_cross_entropy(hidden_ND, table_ID, target_N, first_item=2, even=False)
    plain_N = functional.cross_entropy(hidden_ND @ table_ID[2:].T, target_N - 2, reduction="none")
    torch.testing.assert_close(loss_N, plain_N)
    for seed in (2, 3):
        weight_N = torch.rand(40, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        found = torch.autograd.grad((loss_N * weight_N).sum(), (hidden_ND, table_ID), retain_graph=True)
        expected = torch.autograd.grad((plain_N * weight_N).sum(), (hidden_ND, table_ID), retain_graph=True)
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])
