"""Lists without a server: for pyfunc, batch scoring, the command line and the cost that export measures."""

import uuid
from collections.abc import Sequence

import numpy as np

from serving.answers import Recommendations
from serving.bundle.bundle import Bundle
from serving.cascade.answer import answer
from serving.cascade.asked import check_k, resolve
from serving.cascade.score import score
from serving.catalogue.catalogue import EVERYTHING, Catalogue
from serving.schema import Query
from serving.state.store import Live


def recommend(bundle: Bundle, query: Query) -> Recommendations:
    """Raises InputError where the bundle cannot answer the query."""
    [found] = recommend_many(bundle, [query])
    return found


def recommend_many(
    bundle: Bundle, queries: Sequence[Query], *, catalogue: Catalogue = EVERYTHING, seed: int = 0
) -> list[Recommendations]:
    """Answer queries together, by what the bundle itself knows of their users: each graph runs once. `seed`: of exploration."""
    questions = []
    for query in queries:
        check_k(bundle, query)
        questions.append(resolve(bundle, query, Live(), catalogue))
    scored = score(bundle, [(asked, query.k) for asked, query in zip(questions, queries, strict=True)])
    rng = np.random.default_rng(seed)
    return [
        answer(bundle, query, asked, each, request_id=uuid.uuid4().hex, arm="pinned", rng=rng, stages_ms={})
        for query, asked, each in zip(queries, questions, scored, strict=True)
    ]
