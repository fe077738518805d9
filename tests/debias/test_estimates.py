"""Hand-worked numbers, and estimates nearer to the truth of a planted world than the naive ones.

Shapes as in recsys/debias/estimate.py; U = users, I = items, X = training examples.
"""

import numpy as np
import pytest
import torch
from debias_world import World
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from recsys.columns import TRAIN, label
from recsys.debias.doubly_robust import DoublyRobust, imputation_loss
from recsys.debias.estimate import Estimate, Pairs, Rows, clipped_share, effective_share
from recsys.debias.ips import IPS, of_targets
from recsys.debias.learned import Learned
from recsys.debias.logged import Logged
from recsys.debias.popularity import Popularity
from recsys.debias.snips import SNIPS

ERROR = torch.tensor([[0.2], [0.5]], dtype=torch.float64)  # of two pairs of four that are in the log
CHANCE = torch.tensor([0.5, 0.25], dtype=torch.float64)


def rows(scale: float, **fields: object) -> Rows:
    given = {"logit_BT": ERROR, "label_BT": torch.ones(2, 1), "loss_BT": ERROR, "vector_BV": torch.zeros(2, 1), "step": 0}
    return Rows(**given | {"propensity_B": CHANCE, "scale": scale} | fields)  # type: ignore[arg-type]


def mean(estimate: Estimate) -> float:
    """As the objective reduces it."""
    value = (estimate.loss_BT * estimate.weight_BT).mean()
    return float(value if estimate.loss_PT is None else value + estimate.loss_PT.mean())


def test_ips_and_snips_by_hand() -> None:
    """N = 4: IPS .6 with the share of pairs in the log, 2 / 4, as the mean propensity; SNIPS .4; naive .35."""
    assert mean(IPS().build(1, 1)(rows(scale=0.5))) == pytest.approx(0.6)
    assert SNIPS().scale(CHANCE.numpy()) == pytest.approx(1 / 3)
    assert mean(SNIPS().build(1, 1)(rows(scale=1 / 3))) == pytest.approx(0.4)
    assert ERROR.mean() == pytest.approx(0.35)
    assert IPS().scale(CHANCE.numpy()) == pytest.approx(0.375)


def test_doubly_robust_by_hand() -> None:
    """ehat = .1, .3 of the rows, .1, .3, .4, .2 of all pairs: .25 + .25 = .5; the imputation's sum is .02 + .16 = .18."""
    imputed = torch.tensor([[0.1], [0.3]], dtype=torch.float64)
    weight_BT = (0.5 / CHANCE)[:, None]
    every = torch.tensor([[0.1], [0.3], [0.4], [0.2]], dtype=torch.float64)
    assert mean(Estimate(ERROR - imputed, weight_BT, every)) == pytest.approx(0.5)
    assert float(imputation_loss(ERROR, imputed, 1 / CHANCE[:, None])) * 2 == pytest.approx(0.18)


def test_the_imputer_gives_the_label_of_every_pair() -> None:
    """An imputer of zeros says .5 to all. ehat = log(1 + e^z) - z / 2: .693147 at z = 0, 1.126928 at z = 2."""
    module = DoublyRobust().build(1, 1).double()
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    logit_BT = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    loss_BT = cross_entropy(logit_BT, torch.tensor([[1.0], [0.0]], dtype=torch.float64), reduction="none")
    pairs = Pairs(torch.tensor([[2.0], [0.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64))
    vector_BV = torch.zeros(2, 1, dtype=torch.float64)
    estimate = module(rows(1.0, logit_BT=logit_BT, loss_BT=loss_BT, pairs=pairs, vector_BV=vector_BV))
    assert estimate.loss_BT.flatten().tolist() == pytest.approx([0, 1], abs=1e-6)
    assert estimate.loss_PT.flatten().tolist() == pytest.approx([1.126928, 0.693147], abs=1e-6)
    assert estimate.own.item() == pytest.approx(4 * 1 / 2)


def test_the_floor_clips_and_the_share_is_told() -> None:
    spec = IPS(clip=0.5)
    assert spec.floor(np.array([1.0, 0.5, 0.2, 0.3])) == pytest.approx(0.25)
    assert IPS(clip=0).floor(np.array([1.0, 0.5])) == 0
    assert clipped_share(rows(1.0, floor=0.25)) == 0.5
    assert clipped_share(rows(1.0)) == 0
    assert effective_share(torch.tensor([1.0, 1, 0, 0])) == 0.5


def test_items_of_the_log_weigh_what_they_do_as_targets() -> None:
    """Items in the log 4 and 1 times: propensities 1 and .5, over the five events .9 on average; 1 / p is 1.2 on average."""
    count_I, even = np.array([0, 0, 4, 1]), Popularity()
    assert of_targets(IPS(propensity=even), count_I)[2:] == pytest.approx([0.9, 1.8])
    assert of_targets(SNIPS(propensity=even), count_I)[2:] == pytest.approx([1 / 1.2, 2 / 1.2])
    assert np.isfinite(of_targets(IPS(propensity=even), count_I)).all()
    clipped = of_targets(IPS(propensity=Popularity(exponent=2), clip=1), count_I)
    assert clipped[2:] == pytest.approx([0.9625, 0.9625 / 0.8125]), "1 and 1 / 16, raised to their mean .8125"


class Planted:
    """A predictor that is wrong where the log seldom looks, its loss over all pairs, and what the log makes of it."""

    def __init__(self, world: World):
        self.world, row_X = world, world.dataset.example_rows(TRAIN)
        self.label_X = torch.tensor(np.asarray(world.dataset.examples[label("rating")][row_X]), dtype=torch.float64)
        self.logit_UI = torch.full(world.liked_UI.shape, 0.9, dtype=torch.float64)
        liked_UI = torch.tensor(world.liked_UI)
        self.truth = float(cross_entropy(self.logit_UI, liked_UI, reduction="none").mean())

    def rows(self, propensity_X: np.ndarray, scale: float, pairs: Pairs | None = None) -> Rows:
        logit_X = self.logit_UI[self.world.user_X, self.world.item_X]
        loss_X = cross_entropy(logit_X, self.label_X, reduction="none")
        vector_XV = self.vector(self.world.user_X, self.world.item_X)
        return Rows(
            logit_BT=logit_X[:, None], label_BT=self.label_X[:, None], loss_BT=loss_X[:, None], vector_BV=vector_XV, step=0,
            propensity_B=torch.tensor(propensity_X), scale=scale, pairs=pairs,
        )  # fmt: skip

    def vector(self, user_N: np.ndarray, item_N: np.ndarray) -> Tensor:
        """What the imputer reads: whether country and genre match, and how popular the item is."""
        match_N = self.world.liked_UI[user_N, item_N] > 0.45
        popularity_N = 1 / (1.0 + item_N)
        return torch.tensor(np.stack([match_N, popularity_N, popularity_N > 0.1, ~match_N], axis=1), dtype=torch.float64)

    def error(self, estimate: Estimate) -> float:
        return abs(mean(estimate) - self.truth)


@pytest.fixture(scope="module")
def planted(world: World) -> Planted:
    return Planted(world)


@pytest.mark.parametrize(("source", "share"), [(Logged(), 0.5), (Learned(), 0.5), (Popularity(exponent=1), 0.8)])
def test_weighted_rows_are_nearer_to_the_truth(planted: Planted, source: Logged | Learned | Popularity, share: float) -> None:
    """Popularity does not see that users of a country are shown what they like."""
    data = planted.world.dataset
    spec = SNIPS(propensity=source, clip=0)
    propensity_X = source.fit(data, data.example_rows(TRAIN), "rating")
    naive = planted.error(IPS().build(4, 1)(planted.rows(np.ones_like(propensity_X), 1.0)))
    weighted = planted.error(spec.build(4, 1)(planted.rows(propensity_X, spec.scale(propensity_X))))
    assert naive > 0.05
    assert weighted < share * naive


def doubly_robust(planted: Planted, propensity_X: np.ndarray, *, steps: int) -> Estimate:
    """The estimate after the imputer has learned for so many steps."""
    spec, world = DoublyRobust(), planted.world
    rng = np.random.default_rng(4)
    user_P, item_P = rng.permutation(world.user_X), rng.integers(world.liked_UI.shape[1], size=len(world.user_X))
    pairs = Pairs(planted.logit_UI[user_P, item_P][:, None], planted.vector(user_P, item_P))
    torch.manual_seed(1)
    module = spec.build(4, 1).double()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    given = planted.rows(propensity_X, spec.scale(propensity_X), pairs)
    for _ in range(steps):
        optimizer.zero_grad()
        module(given).own.backward()
        optimizer.step()
    return module(given)


def test_doubly_robust_is_right_where_either_half_is(planted: Planted) -> None:
    """Right propensities with an imputer that never learned; an imputer that learned with propensities that say nothing."""
    data = planted.world.dataset
    right_X = Logged().fit(data, data.example_rows(TRAIN), "rating")
    wrong_X = np.ones_like(right_X)
    naive = planted.error(IPS().build(4, 1)(planted.rows(wrong_X, 1.0)))
    assert planted.error(doubly_robust(planted, right_X, steps=0)) < naive / 2
    assert planted.error(doubly_robust(planted, wrong_X, steps=200)) < naive / 2
    assert planted.error(doubly_robust(planted, wrong_X, steps=0)) > planted.error(doubly_robust(planted, wrong_X, steps=200))


def test_an_imputation_of_no_share_is_snips(planted: Planted) -> None:
    data = planted.world.dataset
    right_X = Logged().fit(data, data.example_rows(TRAIN), "rating")
    pairs = Pairs(torch.zeros(5, 1, dtype=torch.float64), torch.zeros(5, 4, dtype=torch.float64))
    given = planted.rows(right_X, SNIPS().scale(right_X), pairs)
    estimate = DoublyRobust(imputation=0).build(4, 1).double()(given)
    assert mean(estimate) == pytest.approx(mean(SNIPS().build(4, 1)(given)))
