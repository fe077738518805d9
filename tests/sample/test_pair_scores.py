"""Shapes: N = predictions, D = width, C = items, K = items chosen for each prediction."""

import subprocess
import sys

import pytest
import torch
from torch import Generator, Tensor

from recsys.sample import pair_scores as module
from recsys.sample.pair_scores import pair_scores

N, D, C, K = 7, 5, 11, 4


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = Generator().manual_seed(0)
    user_ND, item_CD = (torch.randn(rows, D, generator=generator, dtype=torch.float64).requires_grad_() for rows in (N, C))
    return user_ND, item_CD, torch.randint(C, (N, K), generator=generator)  # an item may be chosen twice


@pytest.mark.parametrize("rows_per_chunk", [1, 3, 100])
def test_equals_all_scores_in_value_and_gradient(rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_NUMBERS", rows_per_chunk * D * K)
    (user_ND, item_CD, chosen_NK), (plain_ND, plain_CD, _) = inputs(), inputs()
    found_NK, expected_NK = pair_scores(user_ND, item_CD, chosen_NK), (plain_ND @ plain_CD.T).gather(1, chosen_NK)
    torch.testing.assert_close(found_NK, expected_NK)
    uneven_NK = torch.linspace(-1, 2, N * K, dtype=torch.float64).view(N, K)
    (found_NK * uneven_NK).sum().backward()
    (expected_NK * uneven_NK).sum().backward()
    torch.testing.assert_close(user_ND.grad, plain_ND.grad)
    torch.testing.assert_close(item_CD.grad, plain_CD.grad)


def test_gradcheck() -> None:
    user_ND, item_CD, chosen_NK = inputs()
    assert torch.autograd.gradcheck(lambda u, i: pair_scores(u, i, chosen_NK), (user_ND, item_CD))


def test_an_item_held_fast_needs_no_gradient() -> None:
    user_ND, item_CD, chosen_NK = inputs()
    pair_scores(user_ND, item_CD.detach(), chosen_NK).sum().backward()
    assert user_ND.grad is not None
    assert not pair_scores(user_ND.detach(), item_CD.detach(), chosen_NK).requires_grad


def test_half_precision_is_widened() -> None:
    user_ND, item_CD, chosen_NK = inputs()
    half_ND, half_CD = (leaf.detach().to(torch.bfloat16).requires_grad_() for leaf in (user_ND, item_CD))
    with torch.autocast("cpu", torch.bfloat16):
        found_NK = pair_scores(half_ND, half_CD, chosen_NK)
    assert found_NK.dtype == torch.float32
    torch.testing.assert_close(found_NK, (half_ND.float() @ half_CD.float().T).gather(1, chosen_NK))
    found_NK.sum().backward()
    assert half_ND.grad is not None
    assert half_ND.grad.dtype == torch.bfloat16


def test_no_rows() -> None:
    _, item_CD, _ = inputs()
    empty_ND = torch.empty(0, D, dtype=torch.float64)
    assert pair_scores(empty_ND, item_CD, torch.empty(0, K, dtype=torch.int64)).shape == (0, K)


PEAK = """
import resource, sys, torch
torch.set_num_threads(1)
from recsys.heads.bpr import BPR
from recsys.sample import Dynamic
from recsys.sample.hard import Standing
items, rows, width, count = map(int, sys.argv[1:])
def step(items, rows):
    user = torch.randn(rows, width, requires_grad=True)
    table = torch.randn(items, width, requires_grad=True)
    place, length = torch.randint(items, (rows,)), torch.full((rows // 20,), 20)
    pool = torch.arange(items)
    standing = Standing(user, table, pool, place, length, pool, torch.zeros(items), torch.zeros(rows))
    against = Dynamic(count=count)(standing)
    BPR()(standing.positive_N, against.negative_NK, torch.zeros(rows), against.log_expected, items).mean().backward()
    assert torch.isfinite(table.grad).all() and (user.grad != 0).any(dim=1).all()
step(200, 40)  # libraries' own memory
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(items, rows)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_of_hard_negatives_among_50_000_items() -> None:
    command = [sys.executable, "-c", PEAK, "50000", "4000", "32", "50"]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < 120e6  # table, its gradient and copies of it: 30 MB; all scores: 800 MB, vectors of all pairs: 26 MB
