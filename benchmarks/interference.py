"""An A/B test of two recommenders that learn from one log: how wrong is the effect it measures, and what mends it?

    python -m benchmarks.interference

A page of candidates, short and long videos; the arms rank them by predicted finish + weight * predicted stay, with another
weight each. Both predictions are linear, so they cannot be right everywhere, and what they are wrong about depends on what they
learn from. Before the test everyone has arm 0. During the test each arm's models learn

- pooled: from all rows, one pair of models for both arms;
- split: from the arm's own rows;
- weighted: from all rows with the weights of `recsys.debias.interference`;
- frozen: from nothing, as they were before the test.

The truth is each arm serving everyone, its models learning from all that it shows. In an A/A test both arms are arm 0 and the
truth is 0. A replication is a world with its own users, tastes and noise; all constants stand below. Bias is the mean of
estimate - truth with its standard error, sd the spread of it over the replications.
Shapes: N = rows of a step, C = candidates of a page, X = features, M = models, O = outcomes, A = arms, R = replications,
K = kinds of video, U = users.
"""

import argparse
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks import measure
from benchmarks.table import publish
from recsys.debias.estimate import Rows
from recsys.debias.interference import ArmWeights, Interference

USERS = 4000
BEFORE, TEST, JUDGED_FROM = 20, 40, 10  # steps before the test and of it; the first of it are not judged
CANDIDATES = 10
TRUTH_HISTORIES = 5
TASTES = 24  # numbers that say how a video suits the user
STAY_WEIGHT = {0: 1.0, 1: 0.25}  # by arm: the new one cares less for long stays, so it shows more short videos
MINUTES = {"short": 0.4, "long": 1.2}  # length of a video
FINISH_INTERCEPT = {"short": 1.0, "long": -0.5}
TASTE_SPREAD, BEND, USER_SPREAD = 0.3, 0.3, 0.5  # of the finish logit: linear part by kind, quadratic part, user's own
RANK_NOISE = 0.1  # of Gumbel numbers added to the score: both arms may show everything
FORGET, RIDGE = 0.9, 1.0  # what a step's rows keep of their weight one step later; of the models, in rows
CLASSIFIER = {
    "hidden": 32,
    "learning_rate": 0.02,
    "updates": 10,
    "steps": 5,
}  # of P(arm | row), refit on the last 5 steps' rows
OUTCOMES = ("short share", "finish rate", "stay, minutes")
WAYS = ("pooled", "split", "weighted", "frozen")


@dataclass
class World:
    """Users and what they like in short and in long videos."""

    rng: np.random.Generator
    rows: int  # users who come in a step, each with one page
    taste_KX: np.ndarray = field(init=False)
    user_U: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.taste_KX = self.rng.normal(0, TASTE_SPREAD, (2, TASTES))
        self.user_U = self.rng.normal(0, USER_SPREAD, USERS)

    def pages(self) -> tuple[np.ndarray, np.ndarray]:
        """Who comes, and what could be shown: feature_NCX, the first saying whether it is long."""
        user_N = self.rng.choice(USERS, self.rows, replace=False)
        long_NC = self.rng.random((self.rows, CANDIDATES, 1)) < 0.5
        return user_N, np.concatenate([long_NC, self.rng.normal(size=(self.rows, CANDIDATES, TASTES))], axis=2)

    def outcomes(self, user_N: np.ndarray, shown_NX: np.ndarray) -> np.ndarray:
        """outcome_NO in the order of OUTCOMES."""
        kind_N, fit_NX = shown_NX[:, 0].astype(int), shown_NX[:, 1:]
        intercept_N = np.array([FINISH_INTERCEPT["short"], FINISH_INTERCEPT["long"]])[kind_N]
        logit_N = intercept_N + (self.taste_KX[kind_N] * fit_NX).sum(1) - BEND * (fit_NX[:, 0] ** 2 - 1) + self.user_U[user_N]
        chance_N = 1 / (1 + np.exp(-logit_N))
        finished_N = self.rng.random(self.rows) < chance_N
        share_N = np.where(finished_N, 1.0, self.rng.random(self.rows) * chance_N)
        return np.stack([1.0 - kind_N, finished_N, share_N * np.array(list(MINUTES.values()))[kind_N]], axis=1)


class Models:
    """Finish and stay, each a line through the features, by weighted least squares that forgets."""

    def __init__(self) -> None:
        self.left_XX, self.right_XM = RIDGE * np.eye(TASTES + 2), np.zeros((TASTES + 2, 2))

    def copy(self) -> "Models":
        other = Models()
        other.left_XX, other.right_XM = self.left_XX.copy(), self.right_XM.copy()
        return other

    def learn(self, shown_NX: np.ndarray, outcome_NO: np.ndarray, weight_N: np.ndarray) -> None:
        design_NX = _with_one(shown_NX)
        self.left_XX = FORGET * self.left_XX + (design_NX.T * weight_N) @ design_NX + (1 - FORGET) * RIDGE * np.eye(TASTES + 2)
        self.right_XM = FORGET * self.right_XM + (design_NX.T * weight_N) @ outcome_NO[:, 1:]

    def choice(self, feature_NCX: np.ndarray, stay_weight: float, rng: np.random.Generator) -> np.ndarray:
        """The candidate shown of each page."""
        predicted_NCM = _with_one(feature_NCX) @ np.linalg.solve(self.left_XX, self.right_XM)
        score_NC = predicted_NCM @ np.array([1.0, stay_weight])
        return (score_NC + rng.gumbel(0, RANK_NOISE, score_NC.shape)).argmax(1)


def _with_one(feature: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((*feature.shape[:-1], 1)), feature], axis=-1)


Weigh = Callable[
    [np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
]  # rows and their arm -> weights for arm 0 and for arm 1


class Classified:
    """Weights of the technique itself: its classifier is refit on the latest rows before it weighs them, as in the paper."""

    def __init__(self, share: float, seed: int):
        specs = [Interference(arm_label="arm", train=arm, share=share, hidden=CLASSIFIER["hidden"]) for arm in (0, 1)]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module: ArmWeights = specs[1].build(TASTES + 1, 1)
        self.specs = specs
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=CLASSIFIER["learning_rate"])
        self.kept: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=int(CLASSIFIER["steps"]))

    def __call__(self, shown_NX: np.ndarray, arm_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vector_NX = torch.from_numpy(shown_NX).float()
        self.kept.append((vector_NX, torch.from_numpy(arm_N).float()))
        vector, arm = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        nothing = torch.zeros(len(arm), 1)
        rows = Rows(nothing, nothing, nothing, vector, torch.full((len(arm),), torch.nan), step=0, arm_B=arm)
        for _ in range(int(CLASSIFIER["updates"])):
            self.optimizer.zero_grad()
            self.module(rows).own.backward()
            self.optimizer.step()
        with torch.no_grad():
            chance_N = self.module.logit(vector_NX).sigmoid()
        return self.specs[0](chance_N).double().numpy(), self.specs[1](chance_N).double().numpy()


def weigh(way: str, share: float, seed: int) -> Weigh:
    match way:
        case "pooled":
            return lambda shown_NX, arm_N: (np.ones(len(arm_N)), np.ones(len(arm_N)))
        case "split":
            return lambda shown_NX, arm_N: ((1 - arm_N) / (1 - share), arm_N / share)
        case "weighted":
            return Classified(share, seed)
        case _:
            return lambda shown_NX, arm_N: (np.zeros(len(arm_N)), np.zeros(len(arm_N)))


def before_the_test(world: World) -> Models:
    models = Models()
    for _ in range(BEFORE):
        step(world, [models], np.zeros(USERS, int), [STAY_WEIGHT[0]], lambda shown_NX, arm_N: (np.ones(len(arm_N)),) * 2)
    return models


def step(world: World, models: list[Models], arm_U: np.ndarray, stay_weight: list[float], weights: Weigh) -> np.ndarray:
    """Serve, then learn; return (arm, outcomes) of the rows."""
    user_N, feature_NCX = world.pages()
    arm_N = arm_U[user_N]
    shown_N = np.zeros(world.rows, int)
    for arm, model in enumerate(models):
        mine_N = arm_N == arm
        shown_N[mine_N] = model.choice(feature_NCX[mine_N], stay_weight[arm], world.rng)
    shown_NX = feature_NCX[np.arange(world.rows), shown_N]
    outcome_NO = world.outcomes(user_N, shown_NX)
    for model, weight_N in zip(models, weights(shown_NX, arm_N), strict=False):
        if weight_N.any():  # frozen models do not even forget
            model.learn(shown_NX, outcome_NO, weight_N)
    return np.concatenate([arm_N[:, None], outcome_NO], axis=1)


def effect(seed: int, way: str, share: float, new: int, rows: int) -> np.ndarray:
    """effect_O of arm `new` on the outcomes as the test measures it."""
    world = World(np.random.default_rng([seed, 0]), rows)
    start = before_the_test(world)
    arm_U = (np.random.default_rng([seed, 1]).random(USERS) < share).astype(int)
    models, weights = [start.copy(), start.copy()], weigh(way, share, seed)
    served = [step(world, models, arm_U, [STAY_WEIGHT[0], STAY_WEIGHT[new]], weights) for _ in range(TEST)]
    seen = np.concatenate(served[JUDGED_FROM:])
    return seen[seen[:, 0] == 1, 1:].mean(0) - seen[seen[:, 0] == 0, 1:].mean(0)


def truth(seed: int, new: int, rows: int) -> np.ndarray:
    """effect_O where each arm serves everyone, in the same world, on average over several histories of it."""
    if new == 0:
        return np.zeros(len(OUTCOMES))
    mean_AO = np.zeros((2, len(OUTCOMES)))
    for arm in (0, 1):
        for history in range(TRUTH_HISTORIES):
            world = World(np.random.default_rng([seed, 0]), rows)
            world.rng = np.random.default_rng([seed, 2, history])
            models = [before_the_test(world)]
            everyone, weights = np.zeros(USERS, int), weigh("pooled", 0.5, seed)
            served = [step(world, models, everyone, [STAY_WEIGHT[arm]], weights) for _ in range(TEST)]
            mean_AO[arm] += np.concatenate(served[JUDGED_FROM:])[:, 1:].mean(0) / TRUTH_HISTORIES
    return mean_AO[1] - mean_AO[0]


def replications(rows: int, last: int, shares: list[float]) -> dict[str, list[list[float]]]:
    """By "new share way": the outcomes of each replication; "new truth": the effect that is sought."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    seeds = range(1, last)
    found = {f"{new} truth": [truth(seed, new, rows).tolist() for seed in seeds] for new in (1, 0)}
    for new in (1, 0):
        for share in shares:
            for way in WAYS:
                found[f"{new} {share} {way}"] = [effect(seed, way, share, new, rows).tolist() for seed in seeds]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interference", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replications", type=int, default=60)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.2], help="of the users who have arm 1")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[60, 200], help="pages of a step: how much there is to learn from"
    )
    args = parser.parse_args()
    tables, found, seconds = [], [], 0.0
    for rows in args.rows:
        run = measure.call(
            "benchmarks.interference", "replications", 1, rows=rows, last=1 + args.replications, shares=args.shares
        )
        cells, facts = _compared(run.result, args.shares)
        columns = ["test", "p", "models learn", *(f"{name}: {what}" for name in OUTCOMES for what in ("bias", "sd", "RMSE"))]
        tables.append((f"{rows} pages a step, {args.replications} replications", columns, cells))
        found += [{"rows": rows, **fact} for fact in facts]
        seconds += run.seconds
    constants = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int | float | dict)}
    publish(
        "interference",
        tables,
        {"replications": args.replications, "seconds": round(seconds), "constants": constants, "found": found},
    )


def _compared(found: dict[str, list[list[float]]], shares: list[float]) -> tuple[list[list[str]], list[dict[str, object]]]:
    rows, facts = [], []
    for new, test in ((1, "A/B"), (0, "A/A")):
        true_RO = np.array(found[f"{new} truth"])
        rows.append([test, "", "truth", *(cell for value in true_RO.mean(0) for cell in (f"{value:+.4f}", "", ""))])
        for share in shares:
            for way in WAYS:
                off_RO = np.array(found[f"{new} {share} {way}"]) - true_RO
                bias_O, sd_O, rmse_O = off_RO.mean(0), off_RO.std(0, ddof=1), (off_RO**2).mean(0) ** 0.5
                error_O = sd_O / len(off_RO) ** 0.5
                each = zip(bias_O, error_O, sd_O, rmse_O, strict=True)
                cells = [cell for b, e, s, r in each for cell in (f"{b:+.4f} ± {e:.4f}", f"{s:.4f}", f"{r:.4f}")]
                rows.append([test, f"{share:g}", way, *cells])
                numbers = {"truth": true_RO.mean(0), "bias": bias_O, "bias_error": error_O, "sd": sd_O, "rmse": rmse_O}
                facts.append(
                    {"test": test, "share": share, "way": way, **{name: value.tolist() for name, value in numbers.items()}}
                )
    return rows, facts


if __name__ == "__main__":
    main()
