"""The histograms that a server holds its lists against."""

from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import NUM_USERS, TASKS, build_bundle

from pipelines.reference import reference
from serving.bundle.bundle import Bundle
from serving.recommend import recommend
from serving.schema import Query


@pytest.mark.parametrize("ranked", [None, 3])
def test_only_items_that_the_ranker_saw_are_counted(tmp_path: Path, ranked: int | None) -> None:
    """The others have a score of retrieval, in another unit, and no probabilities."""
    bundle = Bundle.load(build_bundle(tmp_path / "bundle", serving={"ranked": ranked}))
    found = reference(bundle, rng=np.random.default_rng(0))
    assert list(found.tasks) == list(TASKS)
    lists = [recommend(bundle, Query(user_id=f"user-{user}", k=10)) for user in range(NUM_USERS)]
    values = [item.score for each in lists for item in each.items if item.tasks]
    assert min(values) <= found.edges[0] <= found.edges[-1] <= max(values)
    assert sum(found.share) == pytest.approx(1)
