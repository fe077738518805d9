"""The truth of benchmarks/policy_world.py: what any policy is worth at the requests of the test days.

Shapes: R requests, B requests of a batch, I rows of the item table, J items of the world, D latent dimensions, S places.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recsys.simulate import Simulation
from recsys.simulate.days import visited
from recsys.simulate.truth import logging_policy, relevance, true_value
from recsys.simulate.world import make_world

LOGGER = "logging policy"
Policy = Callable[..., Any]  # pipelines.requests.ItemProbabilities


@dataclass(frozen=True)
class TestDays:
    """The world at the requests of a dataset's test examples."""

    spec: Simulation
    data: Any
    asked: Any  # pipelines.requests.Requests

    @cached_property
    def world(self) -> Any:
        return make_world(self.spec)

    @cached_property
    def item_J(self) -> np.ndarray:
        """The row of the dataset's item table of each item of the world."""
        row = {name: place for place, name in enumerate(self.data.item_ids)}
        return np.array([row[f"i{item}"] for item in range(self.spec.items)])

    @cached_property
    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(user_R, focus_R, taste_RD) of every request, found by its user and moment."""
        number = np.array([-1 if name is None else int(name[1:]) for name in self.data.user_ids])
        user_R, time_ms_R = number[self.asked.user_R], self.asked.time_ms_R
        focus_R, taste_RD = np.full(len(user_R), -1), np.zeros((len(user_R), self.spec.latent_dim), np.float32)
        for each in visited(self.spec, self.world):
            # No two requests of a chunk share a moment.
            time_V = each.start_ms + each.time_R
            place_R = np.searchsorted(time_V, time_ms_R).clip(max=len(time_V) - 1)
            found = np.flatnonzero((time_V[place_R] == time_ms_R) & (each.user_R[place_R] == user_R))
            focus_R[found] = each.focus_R[place_R[found]]
            taste_RD[found] = each.taste_UD[user_R[found]]
        assert (focus_R >= 0).all(), "every request of the dataset is one of the world"
        return user_R, focus_R, taste_RD

    def relevance(self, row_B: np.ndarray) -> np.ndarray:
        user_R, focus_R, taste_RD = self.state
        return relevance(self.world, taste_RD[row_B], user_R[row_B], focus_R[row_B])

    def values(self, policy: Policy, *, max_history: int, filter_seen: bool) -> np.ndarray:
        """value_R of a policy over the dataset's items."""
        from pipelines.requests import probabilities

        value_R = np.zeros(len(self.asked.user_R))
        for row_B, prob_BI in probabilities(policy, self.asked, max_history=max_history, filter_seen=filter_seen):
            value_R[row_B] = true_value(prob_BI[:, self.item_J], self.relevance(row_B))
        return value_R

    def known_values(self, train_count_I: np.ndarray) -> dict[str, np.ndarray]:
        """value_R of the logging policy, and of what needs no learning or knows all."""
        found: dict[str, list[np.ndarray]] = {}
        user_R, focus_R, taste_RD = self.state
        count_J = train_count_I[self.item_J].astype(np.float64)
        for row_B in np.array_split(np.arange(len(user_R)), max(1, len(user_R) // 256)):
            relevance_BJ = self.relevance(row_B)
            policies = {
                LOGGER: logging_policy(self.spec, self.world, taste_RD[row_B], focus_R[row_B]),
                "popularity": np.broadcast_to(count_J / count_J.sum(), relevance_BJ.shape),
                "uniform": np.full(relevance_BJ.shape, 1 / self.spec.items),
                "the best item": np.eye(self.spec.items)[relevance_BJ.argmax(1)],
            }
            for name, prob_BJ in policies.items():
                found.setdefault(name, []).append(true_value(prob_BJ, relevance_BJ))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def logged_reward(self, value_R: np.ndarray, slip: float) -> float:
        """Mean click over the places: who looks clicks what is meant, and of what is not, a share `slip` by accident."""
        looked_at = float(np.mean(np.arange(1.0, self.spec.slots + 1) ** -self.spec.position_decay))
        return looked_at * float(np.mean(value_R + slip * (1 - value_R)))


def greedy(policy: Policy) -> Policy:
    """Always the most probable item."""

    def best(*batch: Any) -> Any:
        import torch

        prob_BI = policy(*batch)
        return torch.nn.functional.one_hot(prob_BI.argmax(1), prob_BI.shape[1]).double()

    return best


def slip(raw: Path) -> float:
    """The share of what was looked at and not meant to be clicked that was clicked by accident, over the whole log."""
    import polars as pl

    files = sorted((raw / "truth/events").rglob("*.parquet"))
    clicks = [pl.read_parquet(raw / file.relative_to(raw / "truth"), columns=["click"]) for file in files]
    truth = pl.concat([pl.read_parquet(file) for file in files])
    accident_N, examined_N = truth["accidental"].to_numpy(), truth["examined"].to_numpy()
    passed_N = examined_N & (pl.concat(clicks)["click"].to_numpy() == 0)
    return float(accident_N.sum() / (passed_N.sum() + accident_N.sum()))
