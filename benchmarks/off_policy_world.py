"""How often do intervals hold the truth? A hundred logs of one simulated world, and a policy whose value is known exactly.

A log has the visits of some hundred users out of many, places filled one by one by the logging policy. The policy in question
knows tastes and not what a visit is about. Its truth is summed over all users, categories and items; a reward is a click in any
of the places. Users, pages or rows may be what counts as drawn: rows of a user are dependent, so that only the first can be
right. Shapes: U users, R requests, S places, N impressions, I items, C categories, D latent dimensions, K steps of a session.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import binom

from recsys.metrics.off_policy import Estimator, Logged, support
from recsys.metrics.off_policy.intervals import bernstein_bound, bootstrap, cluster_sums, normal, student_bound
from recsys.metrics.off_policy.outcome import cross_fitted
from recsys.simulate import Simulation
from recsys.simulate.days import DAY_MS
from recsys.simulate.log import FOCUS_MOVE, FOCUS_STAY, MAX_SESSION_REQUESTS, impressions, visits
from recsys.simulate.truth import relevance
from recsys.simulate.world import first_tastes, make_world

SPEC = Simulation(users=20_000, items=200, events=200_000, categories=10, days=1, accidental_share=0.0, drift=0.0, seed=5)
LOGS = 7  # first word of the logs' random streams
PARTS = 2000  # users enumerated at a time
CLIP = 10.0
# How much the policy minds taste and popularity: one that is like the logger's, and one that does what it seldom does.
POLICIES = {"near": (1.0, 1.0), "far": (3.0, 0.0)}


@dataclass(frozen=True)
class Setting:
    """The world and a policy: prob_RI is softmax(taste * affinity + popularity * log popularity)."""

    spec: Simulation
    taste: float
    popularity: float

    @cached_property
    def world(self) -> Any:
        return make_world(self.spec)

    @cached_property
    def taste_UD(self) -> np.ndarray:
        return first_tastes(self.spec, self.world)

    def policy(self, user_R: np.ndarray) -> np.ndarray:
        world = self.world
        affinity_RI = np.einsum("rd,id->ri", self.taste_UD[user_R], world.latent_ID) / self.spec.latent_dim**0.5
        logit_RI = self.taste * affinity_RI + self.popularity * np.log(world.mass_C[world.category_I] * world.within_I)
        prob_RI = np.exp(logit_RI - logit_RI.max(1, keepdims=True))
        return np.asarray(prob_RI / prob_RI.sum(1, keepdims=True), np.float64)

    @property
    def looked_at(self) -> float:
        """Mean over the places of the chance that somebody looks there."""
        return float(np.mean(np.arange(1.0, self.spec.slots + 1) ** -self.spec.position_decay))

    @cached_property
    def truth(self) -> float:
        """By exact enumeration of users, what their visits are about, and items."""
        activity_U = np.diff(self.world.activity_U, prepend=0.0)
        value = 0.0
        for user_R in np.array_split(np.arange(self.spec.users), max(1, self.spec.users // PARTS)):
            prob_RI, focus_RC = self.policy(user_R), self.focus(user_R)
            for c in range(self.spec.categories):
                relevance_RI = relevance(self.world, self.taste_UD[user_R], user_R, np.full(len(user_R), c))
                value += float((activity_U[user_R] * focus_RC[:, c]) @ np.einsum("ri,ri->r", prob_RI, relevance_RI))
        return value * self.looked_at

    def focus(self, user_R: np.ndarray) -> np.ndarray:
        """share_RC of a user's pages that are about each category: the mean over the steps of a session.

        A visit begins with a category drawn from taste; see `recsys.simulate.log.visits`.
        """
        world = self.world
        logit_RC = np.einsum("rd,cd->rc", self.taste_UD[user_R], world.centroid_CD) / self.spec.latent_dim**0.5
        fresh_RC = np.exp(logit_RC) / np.exp(logit_RC).sum(1, keepdims=True)
        step_RC, total_RC = fresh_RC, np.zeros_like(fresh_RC)
        lasts_K = (1 - 1 / self.spec.session_requests) ** np.arange(MAX_SESSION_REQUESTS)
        for lasts in lasts_K / lasts_K.sum():
            total_RC += lasts * step_RC
            moved_RC = np.zeros_like(step_RC)
            moved_RC[:, world.successor_C] = step_RC
            step_RC = FOCUS_STAY * step_RC + FOCUS_MOVE * moved_RC + (1 - FOCUS_STAY - FOCUS_MOVE) * fresh_RC
        return total_RC

    def log(self, requests: int, seed: int) -> tuple[Logged, np.ndarray]:
        """A log of the logging policy with clusters of users, and page_N."""
        rng = np.random.default_rng([LOGS, seed])
        user_R, focus_R, time_R = visits(self.spec, self.world, self.taste_UD, requests, DAY_MS, rng)
        events, _ = impressions(self.spec, self.world, self.taste_UD, user_R, focus_R, time_R, rng)
        item_N, place_N, page_N, click_N, propensity_N = (
            events[name].to_numpy() for name in ("item", "slot", "request_id", "click", "propensity")
        )
        user_N = np.unique(user_R, return_inverse=True)[1][page_N]
        model = cross_fitted(click_N.astype(float), place_N, item_N, user_N, num_items=self.spec.items, rng=rng)
        prob_RI = self.policy(user_R)
        log = Logged(
            click_N, propensity_N, prob_RI[page_N, item_N], user_N, predicted_N=model.predicted(place_N, item_N),
            direct_N=model.direct(place_N, model.lifts(prob_RI), page_N),
        )  # fmt: skip
        return log, page_N


def coverage(
    setting: Setting, estimators: dict[str, Estimator], *, logs: int, requests: int, draws: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:  # fmt: skip
    """How often each estimator's intervals hold the truth, and why not where they do not."""
    values: dict[str, list[dict[str, Any]]] = {name: [] for name in estimators}
    weights, bounds, truth = [], [], setting.truth
    for seed in range(logs):
        log, page_N = setting.log(requests, seed)
        weights.append(support(log))
        for name, estimator in estimators.items():
            terms = estimator(log)
            users = normal(terms, log.cluster_N)
            drawn, studentised = (
                bootstrap(terms, log.cluster_N, rng=np.random.default_rng(seed), draws=draws, studentised=way)
                for way in (False, True)
            )
            values[name].append(
                {"value": users.value, "error": users.error, "users": users[2:], "users, bootstrap": drawn[2:],
                 "users, studentised": studentised[2:],
                 "pages": normal(terms, page_N)[2:], "rows": normal(terms, np.arange(len(page_N)))[2:]}
            )  # fmt: skip
        bounds.append(_bounds(log))
        progress(seed + 1)
    lower = {name: np.array([each[name] for each in bounds]) for name in bounds[0]}
    return {
        "truth": truth,
        "logs": logs,
        "rows": requests * setting.spec.slots,
        "users": float(np.mean([found.clusters for found in weights])),
        "ess_share": float(np.mean([found.ess / found.rows for found in weights])),
        "max_weight": float(np.median([found.max_weight for found in weights])),
        "flagged": sum(bool(found.problems) for found in weights),
        "estimators": {name: _summary(each, truth) for name, each in values.items()},
        "bounds": {name: {"below": int((v <= truth).sum()), "mean": float(v.mean())} for name, v in lower.items()},
        "nominal": [int(count) for count in binom.interval(0.95, logs, 0.95)],
    }


def _bounds(log: Logged) -> dict[str, float]:
    """One-sided 95 % bounds of the clipped value, by totals of users over the mean number of a user's rows.

    A user's total is at most CLIP for each of their rows; how many rows a user can have is taken from the log.
    """
    size_C = cluster_sums(np.ones(len(log.cluster_N)), log.cluster_N)
    value_C = cluster_sums(np.minimum(log.weight_N, CLIP) * log.reward_N, log.cluster_N) / size_C.mean()
    most = CLIP * size_C.max() / size_C.mean()
    return {"student": student_bound(value_C), "bernstein": bernstein_bound(value_C, most)}


def _summary(each: list[dict[str, Any]], truth: float) -> dict[str, Any]:
    value_L = np.array([entry["value"] for entry in each])
    kinds = ("users", "users, bootstrap", "users, studentised", "pages", "rows")
    held = {kind: sum(bool(entry[kind][0] <= truth <= entry[kind][1]) for entry in each) for kind in kinds}
    own = sum(bool(entry["users"][0] <= value_L.mean() <= entry["users"][1]) for entry in each)
    misses = [int(sum(entry["users"][1] < truth for entry in each)), int(sum(entry["users"][0] > truth for entry in each))]
    return {
        "bias": float(value_L.mean() - truth), "bias_error": float(value_L.std(ddof=1) / len(each) ** 0.5),
        "spread": float(value_L.std(ddof=1)), "error": float(np.mean([entry["error"] for entry in each])),
        "held": held, "held_own_mean": own, "too_low_too_high": misses,
    }  # fmt: skip
