"""JointRank: overlapping blocks, each ranked by every task, and one order of all. Shapes: K = candidates, T = tasks."""

from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field

from recsys.rerank.blocks import Design, meetings
from recsys.rerank.reranker import RerankerSpec
from recsys.rerank.slate import Reranked, Slate, with_rest

CONVERGED, STEPS, MOST_ROUNDS = 1e-10, 10, 20  # looked at every 10 steps: looking costs more than a step


class JointRank(RerankerSpec):
    """Candidates are compared within blocks that overlap, and what the blocks say of pairs is joined to one order.

    JointRank, Dedov 2025, https://arxiv.org/abs/2506.22262. The block ranker is a vote of the tasks: in each block, each task
    ranks by its own probability, and every pair counts for the higher one with the task's weight in the value (for the lower
    one where that is negative). So the list hangs on the order that each task gives, and not on the scale of its
    probabilities, as the weighted sum does. Without tasks, or where none weighs anything, the value alone votes.

    Differs from the paper: there a language model ranks whole blocks, here all that is needed of a candidate is known before,
    so that blocks bound the work of comparing and do not save calls of a model. The number of candidates need not fit the
    design (see `recsys.rerank.blocks`). The layout of the blocks follows from `seed` and the number of candidates, so that the
    list is certain and has no propensities. Candidates that the ranker did not see stay behind the others.
    """

    kind: Literal["jointrank"] = "jointrank"
    design: Design = Field(
        "equi_replicate", description="equi_replicate: each in `repeats` blocks; latin, triangular: each in two, by a square's "
        "rows and columns or a triangle's lines, any two together at most once",
    )  # fmt: skip
    block: int = Field(20, ge=2, description="candidates of a block, of equi_replicate; the others' follows from their number")
    repeats: int = Field(4, ge=2, le=100, description="blocks in which each candidate stands, of equi_replicate")
    aggregate: Literal["pagerank", "win_rate"] = Field("pagerank", description="how pairs become one order")
    damping: float = Field(0.85, gt=0, lt=1, description="of pagerank")
    seed: int = Field(0, ge=0, description="of the layout of the blocks")

    def __call__(self, slate: Slate, k: int, rng: np.random.Generator) -> Reranked:
        compared_N = np.flatnonzero(~np.isnan(slate.probability_KT).any(1))
        if len(compared_N) < len(slate.item_K):
            return Reranked(with_rest(compared_N[self._order(slate.take(compared_N))], len(slate.item_K)))
        return Reranked(self._order(slate))

    def _order(self, slate: Slate) -> np.ndarray:
        count = len(slate.item_K)
        if count < 2:
            return np.arange(count)
        above_KK, met_KK = votes(slate), _meetings(self.design, count, self.block, self.repeats, self.seed)
        if self.aggregate == "pagerank":
            score_K = pagerank(above_KK * met_KK, self.damping) * count
        else:
            score_K = win_rate(above_KK, met_KK)
        return np.argsort(-np.round(score_K, 7), kind="stable")  # what rounding parts are equals


@lru_cache(maxsize=64)  # of K^2 bytes each
def _meetings(design: Design, count: int, block: int, repeats: int, seed: int) -> np.ndarray:
    return meetings(design, count, block=block, repeats=repeats, seed=seed)


def votes(slate: Slate) -> np.ndarray:
    """above_KK: the weight of the tasks that put row above column, over that of all; equals are above neither."""
    probability_TK, weight_T = slate.probability_KT.T, slate.weight_T
    if not len(probability_TK) or not weight_T.any():
        probability_TK, weight_T = slate.value_K[None], np.ones(1)
    above_KK = np.zeros((len(slate.item_K), len(slate.item_K)), np.float32)
    for probability_K, weight in zip(probability_TK, weight_T / np.abs(weight_T).sum(), strict=True):
        if weight:
            signed_K = probability_K if weight > 0 else -probability_K
            above_KK += np.float32(abs(weight)) * (signed_K[:, None] > signed_K[None])
    return above_KK


def win_rate(above_KK: np.ndarray, met_KK: np.ndarray) -> np.ndarray:
    """score_K: the share of the comparisons that were won, equals counting half; 0 for who was never compared."""
    ahead_K = ((above_KK - above_KK.T) * met_KK).sum(1, dtype=np.float64)
    compared_K = met_KK.sum(1, dtype=np.float64)
    return np.where(compared_K > 0, 0.5 + 0.5 * ahead_K / np.maximum(compared_K, 1), 0)


def pagerank(wins_KK: np.ndarray, damping: float) -> np.ndarray:
    """score_K, which sums to 1: where a walk is that goes from each to who beat it, and with 1 - damping to anyone.

    x = (1 - d) / K + d P x, P(i, j) = wins of i over j / losses of j; who never lost goes to anyone. Page et al. 1999,
    http://ilpubs.stanford.edu:8090/422/.
    """
    count = len(wins_KK)
    lost_K = wins_KK.sum(0, dtype=np.float64)
    step_KK = wins_KK * (damping / np.where(lost_K == 0, 1, lost_K))
    step_KK[:, lost_K == 0] = damping / count
    step_KK += (1 - damping) / count
    score_K = np.full(count, 1 / count)
    for _ in range(MOST_ROUNDS):
        before_K = score_K
        for _ in range(STEPS):
            score_K = step_KK @ score_K
        if np.abs(score_K - before_K).max() * count < CONVERGED:
            break
    return score_K
