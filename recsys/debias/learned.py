"""Propensity by a classifier. Shapes: X = training examples, N = pairs, I = rows of the item table, K = columns."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from recsys.columns import FIRST_ID, ITEM, USER
from recsys.dataset import Dataset
from recsys.debias.propensity import PropensitySpec
from recsys.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse

    from recsys.debias.logistic import Bags

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
        from scipy import sparse  # here, so that a machine that only trains with other techniques does without it

        from recsys.debias.logistic import columns, logistic

        users, items = bags(dataset, "user"), bags(dataset, "item")
        if not items:
            raise InputError("propensity learned reads features of items, which this log lacks: add some, or choose popularity")
        user_X, item_X = (np.asarray(dataset.examples[name][row_X]).astype(np.int64) for name in (USER, ITEM))
        log_count_I = np.log1p(np.bincount(item_X, minlength=dataset.num_items))

        def design(user_N: np.ndarray, item_N: np.ndarray) -> "sparse.csr_array":
            return columns(users, items, log_count_I, user_N, item_N)

        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.permutation(len(row_X))[: self.rows])
        random_N = rng.integers(FIRST_ID, dataset.num_items, len(chosen))
        both = sparse.vstack([design(user_X[chosen], item_X[chosen]), design(user_X[chosen], random_N)]).tocsr()
        weight_K = logistic(both, np.repeat([1.0, 0.0], len(chosen)), self.penalty, self.iterations)
        chunks = [slice(begin, begin + CHUNK) for begin in range(0, len(row_X), CHUNK)]
        logit_X = np.concatenate([design(user_X[rows], item_X[rows]) @ weight_K for rows in chunks])
        return np.minimum(np.exp(np.clip(logit_X, -50, 50)) / (dataset.num_items - FIRST_ID), 1.0)


def bags(dataset: Dataset, owner: str) -> "Bags":
    """The features of an owner but those that change slowly, whose value at the time of a random pair is not kept."""
    mine = [f for f in dataset.features if f["owner"] == owner and f["name"] not in dataset.asof]
    return {f["name"]: (dataset.codes(f["name"], owner), f["size"]) for f in mine}
