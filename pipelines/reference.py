"""What the numbers of a bundle's lists look like at export: what a server holds its own against.

Shapes: N = items of all lists.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.serving_cost import known_queries
from serving.bundle.bundle import Bundle
from serving.bundle.facts import Histogram, Reference
from serving.recommend import recommend_many

USERS, K, BINS = 500, 10, 10
AT_ONCE = 16
MODEL = ("retrieval", "generation")  # sources whose items have values of the model's own


def reference(bundle: Bundle, *, rng: np.random.Generator) -> Reference:
    """Histograms of final value and of each task, of lists for users of the log as a server makes them.

    Items beyond `serving.ranked` have neither.
    """
    queries = known_queries(bundle, USERS, K, rng)
    lists = [each for at in range(0, len(queries), AT_ONCE) for each in recommend_many(bundle, queries[at : at + AT_ONCE])]
    items = [item for each in lists for item in each.items if item.source in MODEL and (item.tasks or not bundle.facts.tasks)]
    value = histogram([item.score for item in items])
    tasks = {task: histogram([item.tasks[task] for item in items]) for task in bundle.facts.tasks}
    return Reference(edges=value.edges, share=value.share, tasks=tasks)


def histogram(number_N: Sequence[float]) -> Histogram:
    """Bins of equal shares, as far as equal numbers allow; a bin holds its upper edge."""
    if not len(number_N):
        return Histogram(edges=(), share=(1.0,))
    edges = np.unique(np.quantile(number_N, np.arange(1, BINS) / BINS, method="lower"))
    share = np.bincount(np.searchsorted(edges, number_N, side="left"), minlength=len(edges) + 1) / len(number_N)
    return Histogram(edges=tuple(edges.tolist()), share=tuple(share.tolist()))
