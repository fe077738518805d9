"""Exploration slots: places filled by chance, with the chance of each. Shapes: K = candidates, A = arms of a slot."""

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from recsys.rerank.mmr import unit_range
from recsys.rerank.reranker import RerankerSpec
from recsys.rerank.slate import Reranked, Slate


class Explore(RerankerSpec):
    """Slot by slot from the top, without replacement: with chance `rate` a draw among the next `shortlist` candidates.

    A slot that does not explore shows the candidate that stands first. `inverse_gap` draws candidate a with chance

        p_a = 1 / (A + gamma * max(0, f_first - f_a)),   the first one with what is left, at least 1 / A

    of A candidates: SquareCB, Foster and Rakhlin 2020, https://arxiv.org/abs/2002.04926, with gamma fixed while a model is
    served (its epoch) and set anew with the next one. f is the value formula brought to [0, 1] by its weights,
    (value - sum of the negative weights) / (sum of all weights without their signs); without tasks, the scores stretched
    to [0, 1] over the candidates. Differs from the paper: the arm that gets the rest is the one that stands first, which an
    earlier reranker may have put above a better one (whose gap then counts as 0). `uniform` draws all A alike.

    `propensity_N` is, for each place, the chance of its item given the items above it, the coin of `rate` included; 1 at places
    that do not explore. The product over the places is the chance of the list.
    """

    kind: Literal["explore"] = "explore"
    draws: ClassVar[bool] = True
    draw: Literal["inverse_gap", "uniform"] = Field("inverse_gap", description="how a slot that explores is filled")
    slots: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="places that may explore, 0 at the top; empty: all")
    rate: float = Field(0.1, gt=0, le=1, description="chance with which such a slot explores; 1: always")
    shortlist: int = Field(20, ge=2, description="candidates a slot draws from, the first ones that have no place yet")
    gamma: float = Field(100.0, ge=0, description="of inverse_gap: larger is greedier; 0: uniform")

    @model_validator(mode="after")
    def _each_slot_once(self) -> Self:
        if len(set(self.slots)) < len(self.slots):
            raise ValueError(f"explore.slots {list(self.slots)} names a place twice: name each once")
        return self

    def __call__(self, slate: Slate, k: int, rng: np.random.Generator) -> Reranked:
        count = len(slate.item_K)
        places = min(k, count)
        reward_K = reward(slate)
        place_K, propensity_K = np.arange(count), np.ones(count)
        for slot in sorted(self.slots) if self.slots else range(places):
            if slot >= places:
                break
            arm_A = place_K[slot : slot + self.shortlist]
            chance_A = self.chances(reward_K[arm_A])
            chosen = min(int(np.searchsorted(chance_A.cumsum(), rng.random(), side="right")), len(arm_A) - 1)
            propensity_K[slot] = chance_A[chosen]
            winner = place_K[slot + chosen]
            place_K[slot + 1 : slot + chosen + 1] = place_K[slot : slot + chosen].copy()
            place_K[slot] = winner
        return Reranked(place_K, propensity_K)

    def chances(self, reward_A: np.ndarray) -> np.ndarray:
        """chance_A of each arm to get the slot, the coin included; the first arm is the one that stands there."""
        explored_A = np.full(len(reward_A), 1 / len(reward_A))
        if self.draw == "inverse_gap":
            explored_A = 1 / (len(reward_A) + self.gamma * np.maximum(reward_A[0] - reward_A, 0))
            explored_A[0] = 1 - explored_A[1:].sum()
        chance_A = self.rate * explored_A
        chance_A[0] += 1 - self.rate
        return chance_A


def reward(slate: Slate) -> np.ndarray:
    """reward_K: the value on a scale of 0 to 1 that is the same for all requests, where there are tasks."""
    scale = float(np.abs(slate.weight_T).sum())
    if not slate.probability_KT.shape[1] or not scale:
        return unit_range(slate.value_K)
    least = float(slate.weight_T[slate.weight_T < 0].sum())
    return (slate.value_K.astype(np.float64) - least) / scale
