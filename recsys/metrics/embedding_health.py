"""How much of their space embedding vectors use: signs of collapse that need no label, for diagnosis and never as a loss.

Shapes: N = vectors, P = pairs, D = width.
"""

import numpy as np

EPS = 1e-7  # added to every share of the spectrum, as in the paper
NORM_EPS = 1e-12  # the direction of a zero vector is zero
TEMPERATURE = 2.0  # t of uniformity

# An alarm, not a test: a healthy model is far from all three.
FEWEST_DIRECTIONS = 1.5
LOWEST_SHARE = 0.1
LARGEST_FALL = 0.5


def rankme(vector_ND: np.ndarray) -> float:
    """The effective rank of the vectors: the exponential of the entropy of their singular values, 1..min(N, D).

    RankMe = exp(-sum_k p_k log p_k), p_k = sigma_k / sum sigma + 1e-7. Garrido et al. 2023,
    https://arxiv.org/abs/2210.02885. Vectors are neither centred nor scaled, so a large common mean looks like collapse; it is.
    0 where all vectors are zero. Values of different widths or kinds of model are not to be compared.
    """
    _check(vector_ND)
    sigma_D = np.linalg.svd(vector_ND.astype(np.float64), compute_uv=False)
    if not sigma_D.sum():
        return 0.0
    share_D = sigma_D / sigma_D.sum() + EPS
    return float(np.exp(-(share_D * np.log(share_D)).sum()))


def alignment(user_PD: np.ndarray, item_PD: np.ndarray) -> float:
    """Mean squared distance of the directions of each pair, 0 (the same) to 4 (opposite); lower is closer.

    mean ||u / |u| - i / |i|||^2. Wang and Isola 2020, https://arxiv.org/abs/2005.10242, alpha 2; a pair is a user and the item
    they chose next, as Wang et al. 2022 (DirectAU), https://arxiv.org/abs/2206.12811.
    """
    assert user_PD.shape == item_PD.shape, f"not pairs: shapes {user_PD.shape} and {item_PD.shape}"
    _check(user_PD)
    _check(item_PD)
    return float(((_directions(user_PD) - _directions(item_PD)) ** 2).sum(1).mean())


def uniformity(vector_ND: np.ndarray) -> float:
    """How evenly directions fill the sphere: log of the mean of exp(-2 distance^2) over pairs; lower is more even.

    0 where all are one, about -4 where they are even in many dimensions, -8 for two opposite vectors. Wang and Isola 2020,
    https://arxiv.org/abs/2005.10242: pairs of different rows, t = 2. NaN for a single vector. Memory is quadratic in N:
    hand in a sample.
    """
    _check(vector_ND)
    if len(vector_ND) < 2:
        return float("nan")
    unit_ND = _directions(vector_ND)
    length_N = (unit_ND**2).sum(1)
    distance_NN = np.maximum(length_N[:, None] + length_N - 2 * unit_ND @ unit_ND.T, 0)
    weight_NN = np.exp(-TEMPERATURE * distance_NN)
    pairs = len(unit_ND) * (len(unit_ND) - 1)
    return float(np.log((weight_NN.sum() - np.trace(weight_NN)) / pairs))


def collapse(effective: float, limit: float, highest: float) -> str | None:
    """What is wrong, in words, where RankMe says that the vectors have collapsed; `limit` is the most it can be, min(N, D), and
    `highest` the highest it has been in this run.

    It has where it is below 1.5 (all vectors on one line, near enough), below a tenth of `limit`, or below half of `highest`.
    With a limit of 2 or less there is nothing to lose and no alarm.
    """
    if limit <= 2:
        return None
    found = f"the item vectors use {effective:.1f} of {limit:.0f} directions (RankMe)"
    if effective < FEWEST_DIRECTIONS or effective < LOWEST_SHARE * limit:
        return f"{found}, they have collapsed"
    if effective < LARGEST_FALL * highest:
        return f"{found} and used {highest:.1f} before, they are collapsing"
    return None


def _directions(vector_ND: np.ndarray) -> np.ndarray:
    vector_ND = vector_ND.astype(np.float64)
    return vector_ND / np.maximum(np.linalg.norm(vector_ND, axis=1, keepdims=True), NORM_EPS)


def _check(vector_ND: np.ndarray) -> None:
    assert vector_ND.ndim == 2, f"rows are vectors, not shape {vector_ND.shape}"
    assert vector_ND.size, "no vector to judge"
    if bad := np.count_nonzero(~np.isfinite(vector_ND)):
        raise ValueError(f"{bad} of {vector_ND.size} numbers of the vectors are not finite")
