"""Logistic regression on sparse columns. Shapes: N = rows or pairs, I = rows of the item table, K = columns.

A column is a value of an item's feature, or such a value together with one of a user's feature, hashed.
"""

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

from recsys.jagged import Jagged, ranges

Bags = dict[str, tuple[Jagged, int]]  # by feature: the codes of every row, and how many codes there are
COLUMNS = 1 << 16  # of one cross: more are hashed


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
