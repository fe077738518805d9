"""Numbers worked by hand. Shapes: N = predictions, S = negatives."""

import math

import pytest
import torch

from recsys.heads.bpr import BPR
from recsys.heads.gbce import GBCE


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def run(spec: GBCE | BPR, positive: float, negatives: list[float], num_items: int = 9) -> float:
    count = len(negatives)
    found = spec(
        torch.tensor([float(positive)]),
        torch.tensor([negatives], dtype=torch.float32),
        torch.zeros(1),
        torch.zeros(count),
        num_items,
    )
    return float(found.item())


def test_gbce_by_hand() -> None:
    # 2 of 8 possible negatives: alpha = 1/4; t = 1/2: beta = 1/4 * (1/2 * (1 - 4) + 4) = 5/8.
    expected = -(5 / 8 * math.log(sigmoid(1)) + math.log(1 - sigmoid(0)) + math.log(1 - sigmoid(-2))) / 3
    assert run(GBCE(t=0.5), 1, [0, -2]) == pytest.approx(expected, rel=1e-6)


def test_gbce_without_calibration_is_binary_cross_entropy() -> None:
    expected = -(math.log(sigmoid(1)) + math.log(1 - sigmoid(0)) + math.log(1 - sigmoid(-2))) / 3
    assert run(GBCE(t=0), 1, [0, -2]) == pytest.approx(expected, rel=1e-6)
    # With every negative in hand nothing is missing, and more draws than items are no more than all.
    for negatives in ([0.0, -2.0], [0.0, -2.0, 1.0]):
        assert run(GBCE(t=1), 1, negatives, num_items=3) == pytest.approx(run(GBCE(t=0), 1, negatives, num_items=3))


def test_gbce_at_full_calibration_finds_the_true_probability() -> None:
    # One item of 21 is taken with probability p, and 5 of the other 20 are drawn as negatives. An item is a positive with
    # weight p * beta and a negative with weight (1 - p) * 5 / 20, so the score where the loss is least must be logit(p).
    p, negatives, num_items = 0.3, 5, 21
    score = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([score], max_iter=50)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        far_NS, zero_N, zero_S = torch.full((1, negatives), -30.0).double(), torch.zeros(1), torch.zeros(negatives)
        taken = GBCE(t=1)(score[None], far_NS, zero_N, zero_S, num_items)
        drawn_NS = torch.cat([score[None, None], far_NS[:, 1:]], dim=1)
        left = GBCE(t=1)(torch.full((1,), 30.0).double(), drawn_NS, zero_N, zero_S, num_items)
        total = (p * taken + (1 - p) * negatives / (num_items - 1) * left).sum()
        total.backward()
        return total

    optimizer.step(closure)
    assert score.item() == pytest.approx(math.log(p / (1 - p)), abs=1e-4)


def test_bpr_by_hand() -> None:
    expected = -(math.log(sigmoid(1)) + math.log(sigmoid(3))) / 2
    assert run(BPR(), 1, [0, -2]) == pytest.approx(expected, rel=1e-6)
    assert run(BPR(), 1, [0, -2, -math.inf]) == pytest.approx(expected, rel=1e-6)
    assert run(BPR(), 1, [-math.inf]) == 0


@pytest.mark.parametrize(
    ("positive", "negative", "bpr", "gbce"), [(-80, 80, 160, 80), (80, -80, 0, 0), (80, 80, math.log(2), 40)]
)
def test_extreme_logits(positive: float, negative: float, bpr: float, gbce: float) -> None:
    assert run(BPR(), positive, [negative]) == pytest.approx(bpr)
    assert run(GBCE(t=0), positive, [negative]) == pytest.approx(gbce)
