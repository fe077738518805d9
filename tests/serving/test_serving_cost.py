"""What a bundle costs is measured on the bundle itself, which is opened as a server opens it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines import serving_cost
from recsys.errors import InputError
from serving.answers import Recommendations
from serving.bundle.bundle import Bundle
from serving.recommend import recommend
from serving.schema import Query


def test_requests_are_of_known_users_and_a_slow_one_shows(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    slow_s = {serving_cost.WARM_UP - 1: 0.5, **dict.fromkeys((50, 100, 150, 200), 0.1)}  # 4 of 200 are more than one percent

    def sometimes_slow(bundle: Bundle, query: Query) -> Recommendations:
        import time

        time.sleep(slow_s.get(len(asked), 0))
        asked.append(query.user_id)
        return recommend(bundle, query)

    monkeypatch.setattr(serving_cost, "recommend", sometimes_slow)
    found = serving_cost.serving_cost(bundle_folder, rng=np.random.default_rng(0))
    assert len(asked) == serving_cost.WARM_UP + serving_cost.REQUESTS
    assert len(set(asked)) > 1
    assert 0 < found["latency_p50_ms"] < 90 < found["latency_p99_ms"] < 400  # what warms up does not count
    assert found["bundle_mib"] * 2**20 == sum(path.stat().st_size for path in bundle_folder.iterdir())


def test_a_bundle_that_no_server_would_open_is_not_measured(make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle()
    (folder / "retrieval.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match="differs from its manifest"):
        serving_cost.serving_cost(folder, rng=np.random.default_rng(0))
