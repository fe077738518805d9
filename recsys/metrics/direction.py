"""Which way is better, by a metric's name. The one place that says so: comparisons, gates and searches ask here.

A direction holds at equal accuracy: random lists cover the catalogue best, and nobody wants them.
"""

import re

HIGHER_IS_BETTER = {
    "hr", "ndcg", "map", "mrr", "recall", "precision",
    "auc", "gauc", "pr-auc",
    "coverage", "novelty", "ild", "serendipity",
}  # fmt: skip
LOWER_IS_BETTER = {
    "loss", "logloss", "ne", "ece", "brier", "rmse", "mae",
    "gini", "category_calibration",
    "parity_max_error", "latency_p50_ms", "latency_p99_ms", "bundle_mib",
}  # fmt: skip


def direction(name: str) -> int:
    """+1 where more is better, -1 where less is, 0 where the name does not say, neither is, or it is a floor's.

    `name` is a bare metric or its full name in MLflow: NDCG@10, AUC/click, test/NDCG@10/generator, slice/tail/NDCG@10,
    cost/train_s. Neither is better of `popularity_lift`, whose best value is 0, and of the ends of an interval.
    """
    parts = name.lower().split("/")
    match parts[0]:
        case "floor":
            return 0
        case "cost":  # what training took, but for its speed
            return 1 if parts[1:2] == ["examples_per_s"] else -1
        case "test" | "valid":
            parts = parts[1:2]  # what follows is the name of a task or a model, which may be called as a metric is
        case "slice":
            parts = parts[2:3]
    bare = [re.split("[@:]", part)[0] for part in parts]  # stores that do not take an @ have a colon
    return next((1 if part in HIGHER_IS_BETTER else -1 for part in bare if part in HIGHER_IS_BETTER | LOWER_IS_BETTER), 0)
