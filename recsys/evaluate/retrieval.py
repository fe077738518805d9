"""Metrics of lists, and the floor that any model has to beat. Shapes: U = users judged, K = list length."""

from collections.abc import Iterator, Sequence

import numpy as np

from recsys.dataset import Dataset
from recsys.evaluate.beyond import Surroundings
from recsys.evaluate.judged import Judged, training_timelines
from recsys.evaluate.slices import Slices, in_slices
from recsys.metrics import floor
from recsys.metrics.ranking import coverage, rank_metrics


def retrieval_metrics(
    item_UK: np.ndarray, judged: Judged, ks: Sequence[int], num_items: int, *, surroundings: Surroundings | None = None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Means over users, what the lists are like as a whole at the first K, and the values of every user.

    With `surroundings` also what is beyond accuracy, at the first K. A user without a value (NaN) is in no mean, and a metric
    that nobody has is left out of the means.
    """
    k = ks[0]
    per_user = rank_metrics(item_UK, judged.relevant, ks)
    whole = {f"coverage@{k}": coverage(item_UK[:, :k], num_items)}
    if surroundings is not None:
        per_user |= surroundings.per_user(item_UK, judged, k)
        whole |= surroundings.of_catalogue(item_UK, k) | surroundings.of_group(item_UK, judged, k)
    return _means(per_user) | _known(whole), per_user


def slice_metrics(
    item_UK: np.ndarray, judged: Judged, per_user: dict[str, np.ndarray], ks: Sequence[int], slices: Slices,
    surroundings: Surroundings,
) -> Iterator[tuple[str, int, dict[str, float]]]:  # fmt: skip
    """Name, users and means of each slice: accuracy, and for a slice of users what is beyond it and belongs to users."""
    for name, row_S, values in in_slices(item_UK, judged, per_user, ks, slices):
        means = _means(values)
        if name in slices.user and len(row_S):
            means |= _known(surroundings.of_group(item_UK[row_S], judged.take(row_S), ks[0]))
        yield name, len(row_S), means


def floors(data: Dataset, judged: Judged, *, k: int, filter_seen: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Lists of the models that any other has to beat, counted on the training split."""
    timelines = training_timelines(data)
    scorers: dict[str, floor.Scorer] = {
        "popularity": floor.Popularity.fit(timelines, data.num_items),
        "item-knn": floor.ItemKNN.fit(timelines, data.num_items, last=3),
        "transitions": floor.Transitions.fit(timelines, data.num_items),
    }
    for name, scorer in scorers.items():
        yield name, floor.recommend(scorer, judged.history, data.num_items, k, filter_seen=filter_seen)


def _means(per_user: dict[str, np.ndarray]) -> dict[str, float]:
    """Over the users that have a value; without the metrics that nobody has."""
    existing = {name: value_U[~np.isnan(value_U)] for name, value_U in per_user.items()}
    return {name: float(value_U.mean()) for name, value_U in existing.items() if len(value_U)}


def _known(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value == value}
