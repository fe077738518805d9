"""Propensity by a classifier. Shapes: X = training examples, N = pairs, I = rows of the item table, K = columns.

A column is a value of an item's feature, or such a value together with one of a user's feature, hashed.
"""

from typing import Literal

import numpy as np
from pydantic import Field
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

from recsys.columns import FIRST_ID, ITEM, USER
from recsys.dataset import Dataset
from recsys.debias.propensity import PropensitySpec
from recsys.errors import InputError
from recsys.jagged import Jagged, ranges

Bags = dict[str, tuple[Jagged, int]]  # by feature: the codes of every row, and how many codes there are
COLUMNS = 1 << 16  # of one cross: more are hashed
CHUNK = 1 << 16  # rows that are scored at once


class Learned(PropensitySpec):
    """Logistic regression that tells rows of the log from the same users with random items, by popularity, the items' features
    and their crosses with the users' features. With as many pairs as rows its odds are P(item | user) * number of items.

    Schnabel et al. 2016, https://arxiv.org/abs/1602.05352, section 5.2. Differs from the paper: a user's own features and level
    have no column, since every user is compared with himself.
    """

    kind: Literal["learned"] = "learned"
    penalty: float = Field(1.0, ge=0, description="of the squared weights, in rows")
    rows: int = Field(200_000, ge=1, description="rows of the log to learn from, at most, and as many random pairs")
    iterations: int = Field(200, ge=1, description="of L-BFGS, at most")
    seed: int = Field(1, ge=0, description="of the rows and the random pairs")

    def fit(self, dataset: Dataset, row_X: np.ndarray, task: str) -> np.ndarray:
        users, items = bags(dataset, "user"), bags(dataset, "item")
        if not items:
            raise InputError("propensity learned reads features of items, which this log lacks: add some, or choose popularity")
        user_X, item_X = (np.asarray(dataset.examples[name][row_X]).astype(np.int64) for name in (USER, ITEM))
        log_count_I = np.log1p(np.bincount(item_X, minlength=dataset.num_items))

        def design(user_N: np.ndarray, item_N: np.ndarray) -> sparse.csr_array:
            return columns(users, items, log_count_I, user_N, item_N)

        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.permutation(len(row_X))[: self.rows])
        random_N = rng.integers(FIRST_ID, dataset.num_items, len(chosen))
        both = sparse.vstack([design(user_X[chosen], item_X[chosen]), design(user_X[chosen], random_N)]).tocsr()
        weight_K = logistic(both, np.repeat([1.0, 0.0], len(chosen)), self.penalty, self.iterations)
        chunks = [slice(begin, begin + CHUNK) for begin in range(0, len(row_X), CHUNK)]
        logit_X = np.concatenate([design(user_X[rows], item_X[rows]) @ weight_K for rows in chunks])
        return np.minimum(np.exp(np.clip(logit_X, -50, 50)) / (dataset.num_items - FIRST_ID), 1.0)


def bags(dataset: Dataset, owner: str) -> Bags:
    """The features of an owner but those that change slowly, whose value at the time of a random pair is not kept."""
    mine = [f for f in dataset.features if f["owner"] == owner and f["name"] not in dataset.asof]
    return {f["name"]: (dataset.codes(f["name"], owner), f["size"]) for f in mine}


def columns(users: Bags, items: Bags, log_count_I: np.ndarray, user_N: np.ndarray, item_N: np.ndarray) -> sparse.csr_array:
    """design_NK: 1, the log count, each feature of the item and each cross; the values of a list share the weight 1."""
    blocks = [sparse.csr_array(np.stack([np.ones(len(item_N)), log_count_I[item_N]], axis=1))]
    for of_item, item_size in items.values():
        item_codes = of_item.take(item_N)
        blocks.append(_block(item_codes, item_size))
        for of_user, user_size in users.values():
            crossed = cross(of_user.take(user_N), item_codes, item_size)
            hashed = Jagged(crossed.item_E % COLUMNS, crossed.offset_U1)
            blocks.append(_block(hashed, min(COLUMNS, item_size * user_size)))
    return sparse.hstack(blocks).tocsr()


def cross(first: Jagged, second: Jagged, size: int) -> Jagged:
    """Every pair of a code of the first and one of the second, row by row, as the code first * size + second."""
    length_N = first.lengths * second.lengths
    within_E = ranges(np.zeros_like(length_N), length_N)
    row_E = np.repeat(np.arange(len(length_N)), length_N)
    step_E = second.lengths[row_E]
    first_E = first.item_E[first.offset_U1[row_E] + within_E // step_E].astype(np.int64)
    second_E = second.item_E[second.offset_U1[row_E] + within_E % step_E]
    return Jagged(first_E * size + second_E, np.concatenate([[0], np.cumsum(length_N)]))


def logistic(design_NK: sparse.csr_array, label_N: np.ndarray, penalty: float, iterations: int) -> np.ndarray:
    """weight_K of least log loss, with half the penalty times the squared weights; that of the first column is free."""
    free_K = np.full(design_NK.shape[1], penalty)
    free_K[0] = 0.0

    def objective(weight_K: np.ndarray) -> tuple[float, np.ndarray]:
        logit_N = design_NK @ weight_K
        value = np.logaddexp(0, logit_N).sum() - label_N @ logit_N + 0.5 * (free_K * weight_K**2).sum()
        slope_K = design_NK.T @ (expit(logit_N) - label_N) + free_K * weight_K
        return value / len(label_N), slope_K / len(label_N)

    found = minimize(objective, np.zeros(design_NK.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return np.asarray(found.x)


def _block(codes: Jagged, size: int) -> sparse.csr_array:
    share_E = np.repeat(1 / np.maximum(codes.lengths, 1), codes.lengths)
    return sparse.csr_array((share_E, codes.item_E, codes.offset_U1), shape=(len(codes), size))
