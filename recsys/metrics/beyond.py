"""What lists are like beside being right: how exposure is spread, how popular and how unexpected the items are.

Each takes the lists at the K that is judged. Places without an item (0 or -1) and unknown items do not count; a user without
any item has no value (NaN).
Shapes: U = users, K = places of a list, I = rows of the item table, H = events of all histories, N = items of all lists.
"""

import numpy as np

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged
from recsys.metrics.ranking import hits


def gini(item_UK: np.ndarray, num_items: int) -> float:
    """How unevenly the lists are spread over the catalogue: 0 where each item is in equally many, 1 where all are one item.

    G = sum_j (2 j - n - 1) p_j / (n - 1), p_j being the n items' shares of places, lowest first. Shani and Gunawardana 2011,
    https://doi.org/10.1007/978-0-387-85820-3_8. An item in no list has share 0: it counts, unlike in tools that look at the
    recommended items alone. NaN where nothing is recommended or the catalogue is one item.
    """
    exposure_I = np.bincount(item_UK[item_UK >= FIRST_ID], minlength=num_items)[FIRST_ID:]
    assert len(exposure_I) == num_items - FIRST_ID, f"an item of the lists is not among {num_items} items"
    n, places = len(exposure_I), int(exposure_I.sum())
    if n < 2 or not places:
        return float("nan")
    # Whole numbers up to the division: an even spread is 0 and not nearly so.
    return int(((2 * np.arange(1, n + 1) - n - 1) * np.sort(exposure_I)).sum()) / ((n - 1) * places)


def novelty(item_UK: np.ndarray, train_count_I: np.ndarray) -> np.ndarray:
    """Mean self-information of each user's items, in bits: novelty_U, from 0 to log2 of the number of training events.

    mean of -log2 p(i), p(i) = training events of item i over all training events. Zhou et al. 2010,
    https://doi.org/10.1073/pnas.1000488107 (self-information), with p as in the expected free discovery of Vargas and
    Castells 2011, https://doi.org/10.1145/2043932.2043955. Differs from Zhou et al.: events
    are counted, not users. An item without a training event counts as one with a single one, since its information would be
    infinite.
    """
    count_I = np.maximum(train_count_I[FIRST_ID:], 1)
    bits_I = np.log2(max(int(train_count_I[FIRST_ID:].sum()), 1)) - np.log2(count_I)
    return _mean_over_lists(item_UK, np.concatenate([np.zeros(FIRST_ID), bits_I]))


def serendipity(item_UK: np.ndarray, relevant: Jagged, usual_UK: np.ndarray) -> np.ndarray:
    """Share of each user's places with an item that is relevant and that `usual_UK`, the same user's list of the most popular
    items at the same K, does not have: serendipity_U in 0..1.

    |(list without usual list) and relevant| / K. Ge, Delgado-Battenfeld and Jannach 2010,
    https://doi.org/10.1145/1864708.1864761, after Murakami, Mori and Orihara 2008, https://doi.org/10.1007/978-3-540-78197-4_5:
    unexpected is what a primitive model does not give, useful is what was chosen. Differs from the paper: divided by K and
    not by the number of unexpected items, so that it never exceeds Precision@K, and popularity is the primitive model.
    NaN for a user without relevant items.
    """
    assert item_UK.shape == usual_UK.shape, f"lists of {item_UK.shape} beside usual ones of {usual_UK.shape}"
    hit_UK, count_U = hits(item_UK, relevant)
    row_N, place_N = np.nonzero(hit_UK)
    unexpected_N = ~(usual_UK[row_N] == item_UK[row_N, place_N][:, None]).any(1)
    found_U = np.bincount(row_N[unexpected_N], minlength=len(item_UK)) / item_UK.shape[1]
    return np.where(count_U > 0, found_U, np.nan)


def popularity_lift(item_UK: np.ndarray, history: Jagged, train_count_I: np.ndarray) -> float:
    """How much more popular the lists are than what the users chose: 0 as popular, 1 twice as popular, -1 the least.

    (GAP of lists - GAP of histories) / GAP of histories, GAP being the mean over users of the mean training events of their
    items. Abdollahpouri et al. 2019, https://arxiv.org/abs/1907.13286, called popularity lift in Abdollahpouri et al. 2020,
    https://doi.org/10.1145/3383313.3418487. A ratio of means over a group of users, so no user has one. Differs from the paper:
    an item that a history repeats counts each time; a user without a history or without a list is in neither mean. NaN where
    nobody is left, or where no item of a history was ever trained on.
    """
    count_I = np.concatenate([np.zeros(FIRST_ID), train_count_I[FIRST_ID:]]).astype(np.float64)
    real_H = history.item_E >= FIRST_ID
    row_H = history.row_E[real_H]
    sum_U = np.bincount(row_H, weights=count_I[history.item_E[real_H]], minlength=len(history))
    length_U = np.bincount(row_H, minlength=len(history))
    list_U = _mean_over_lists(item_UK, count_I)
    both_U = (length_U > 0) & ~np.isnan(list_U)
    chosen = float((sum_U[both_U] / length_U[both_U]).sum())
    return float(list_U[both_U].sum()) / chosen - 1 if chosen else float("nan")


def _mean_over_lists(item_UK: np.ndarray, value_I: np.ndarray) -> np.ndarray:
    """mean_U of the items' values; NaN for an empty list."""
    real_UK = item_UK >= FIRST_ID
    length_U = real_UK.sum(1)
    sum_U = np.where(real_UK, value_I[np.where(real_UK, item_UK, 0)], 0).sum(1)
    return np.divide(sum_U, length_U, out=np.full(len(item_UK), np.nan), where=length_U > 0)
