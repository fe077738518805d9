"""Lists with ties, short ones and several targets, held against ranx and torchmetrics.

Shapes: U = users, I = items, K = places.
"""

import importlib
import os
from types import ModuleType

import numpy as np
import pytest
import torch
from torchmetrics.functional import retrieval

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged
from recsys.metrics.ranking import rank_metrics

USERS, NUM_ITEMS, PLACES = 60, 40, 12
KS = (1, 5, 12)


@pytest.fixture(scope="module")
def ranx() -> ModuleType:
    """Skip without it, but not where CI must have it."""
    return importlib.import_module("ranx") if os.environ.get("CI") else pytest.importorskip("ranx")


@pytest.fixture(scope="module")
def lists() -> tuple[np.ndarray, list[list[int]]]:
    """item_UK from scores of few levels, equal ones by the lower id, some lists short; and 1 to 20 targets of each user."""
    rng = np.random.default_rng(0)
    score_UI = rng.integers(0, 6, (USERS, NUM_ITEMS)).astype(np.float64)
    score_UI[:, :FIRST_ID] = -np.inf
    item_UK = np.argsort(-score_UI, axis=1, kind="stable")[:, :PLACES]
    item_UK[np.arange(PLACES) >= rng.integers(1, PLACES + 6, (USERS, 1))] = 0
    relevant = [rng.permutation(np.arange(FIRST_ID, NUM_ITEMS))[: rng.integers(1, 21)].tolist() for _ in range(USERS)]
    return item_UK, relevant


@pytest.mark.filterwarnings("ignore:.*unsafe cast from uint64 to int64")  # numba, where it compiles ranx for the first time
@pytest.mark.parametrize("k", KS)
def test_agrees_with_ranx(k: int, lists: tuple[np.ndarray, list[list[int]]], ranx: ModuleType) -> None:
    item_UK, relevant = lists
    qrels = ranx.Qrels({str(user): {str(item): 1 for item in items} for user, items in enumerate(relevant)})
    run = ranx.Run(
        {str(user): {str(item): -float(place) for place, item in enumerate(row) if item} for user, row in enumerate(item_UK)}
    )
    names = {"HR": "hit_rate", "NDCG": "ndcg", "MRR": "mrr", "Recall": "recall", "Precision": "precision", "MAP": "map"}
    ranx.evaluate(qrels, run, [f"{theirs}@{k}" for theirs in names.values()])
    ours = rank_metrics(item_UK, Jagged.from_lists(relevant), [k])
    targets_U = np.array([len(items) for items in relevant])
    for name, theirs in names.items():
        theirs_U = np.array([run.scores[f"{theirs}@{k}"][str(user)] for user in range(USERS)])
        if name == "MAP":  # theirs is over all targets, ours over those that could be among the first K
            theirs_U = theirs_U * targets_U / np.minimum(targets_U, k)
        np.testing.assert_allclose(ours[f"{name}@{k}"], theirs_U, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("k", KS)
def test_agrees_with_torchmetrics(k: int, lists: tuple[np.ndarray, list[list[int]]]) -> None:
    item_UK, relevant = lists
    ours = rank_metrics(item_UK, Jagged.from_lists(relevant), [k])
    for user, (row, targets) in enumerate(zip(item_UK.tolist(), relevant, strict=True)):
        # The list on top in its order, then K items that fill it where it is short and are nobody's targets, then all others.
        listed = [item for item in row if item]
        score_I, target_I = torch.full((NUM_ITEMS + k,), -100.0), torch.zeros(NUM_ITEMS + k, dtype=torch.int64)
        score_I[listed] = torch.arange(len(listed), 0, -1).float()
        score_I[NUM_ITEMS:] = -50.0
        target_I[targets] = 1
        theirs = {
            "HR": retrieval.retrieval_hit_rate(score_I, target_I, top_k=k),
            "NDCG": retrieval.retrieval_normalized_dcg(score_I, target_I, top_k=k),
            "Recall": retrieval.retrieval_recall(score_I, target_I, top_k=k),
            "Precision": retrieval.retrieval_precision(score_I, target_I, top_k=k),
        }
        hits = len(set(listed[:k]) & set(targets))
        if hits:  # theirs has no K
            theirs["MRR"] = retrieval.retrieval_reciprocal_rank(score_I, target_I)
        # Theirs is over the hits, ours over the targets that could be among the first K.
        theirs["MAP"] = retrieval.retrieval_average_precision(score_I, target_I, top_k=k) * hits / min(len(targets), k)
        for name, value in theirs.items():
            assert ours[f"{name}@{k}"][user] == pytest.approx(float(value), abs=1e-6), (name, user)
