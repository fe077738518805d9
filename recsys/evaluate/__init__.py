"""Judge a model the way it is served: rank the whole catalogue, beside the floor, and keep every user's value."""

from recsys.evaluate.beyond import Surroundings
from recsys.evaluate.health import embedding_health
from recsys.evaluate.judged import Judged, RequestTime, judged_users, training_timelines
from recsys.evaluate.lists import Graph, padded, recommend
from recsys.evaluate.ranking import Predictions, per_user_ranking, predict, ranking_metrics, reliability_curves
from recsys.evaluate.retrieval import floors, retrieval_metrics, slice_metrics
from recsys.evaluate.slices import Slices, built_in_slices, config_slices, in_slices

__all__ = [
    "Graph",
    "Judged",
    "Predictions",
    "RequestTime",
    "Slices",
    "Surroundings",
    "built_in_slices",
    "config_slices",
    "embedding_health",
    "floors",
    "in_slices",
    "judged_users",
    "padded",
    "per_user_ranking",
    "predict",
    "ranking_metrics",
    "recommend",
    "reliability_curves",
    "retrieval_metrics",
    "slice_metrics",
    "training_timelines",
]
