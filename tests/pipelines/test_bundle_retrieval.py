"""What is kept of the exact candidates is measured at export, and too little is refused.

Shapes: B = requests, K = candidates.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_data import planted_config, write_dataset

from pipelines import bundle_retrieval
from pipelines.bundle_retrieval import recall_of, store_retrieval
from pipelines.reference import histogram
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.export.parity import Parity
from recsys.export.requests import sample_requests
from recsys.export.retrieval import export_retrieval
from recsys.models.retriever import RetrievalGraph
from recsys.models.sasrec import SASRec

ROWS, LENGTH = 600, 5


def test_recall_is_a_share_of_what_the_exact_graph_found() -> None:
    assert recall_of(np.array([[2, 3, 9], [4, 0, 0]]), np.array([[2, 3, 5], [4, 6, 0]])) == pytest.approx(3 / 5)
    assert recall_of(np.zeros((1, 2), int), np.zeros((1, 2), int)) == 1


def test_bins_hold_equal_shares_and_their_upper_edges() -> None:
    found = histogram(list(range(1, 101)))
    assert len(found.edges) == 9
    assert sum(found.share) == pytest.approx(1)
    edges = np.array([-np.inf, *found.edges, np.inf])
    expected = [((np.arange(1, 101) > low) & (np.arange(1, 101) <= high)).mean() for low, high in itertools.pairwise(edges)]
    np.testing.assert_allclose(found.share, expected)
    assert histogram([3.0, 3.0, 3.0]).model_dump() == {"edges": (3.0,), "share": (1.0, 0.0)}
    assert histogram([]).share == (1.0,)


def test_requests_are_the_ends_of_timelines(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", [[2, 3, 4, 5], [], [6]])
    given = sample_requests(data, 3, 10, np.random.default_rng(0))
    assert given["history"].tolist() == [[3, 4, 5], [6, 0, 0]]
    assert given["length"].tolist() == [3, 1]
    for time_M, length in zip(given["time"], given["length"], strict=True):
        assert (np.diff(time_M[: length + 1]) > 0).all()
        assert not time_M[length + 1 :].any()


def stored(config: RunConfig, data: Dataset, folder: Path) -> bundle_retrieval.Stored:
    torch.manual_seed(0)
    graph = RetrievalGraph(SASRec(dim=8, blocks=1, heads=2), LENGTH, torch.randn(ROWS, 8), 20).eval()
    folder.mkdir()
    export_retrieval(graph, LENGTH, ROWS, folder / "retrieval.onnx")
    given = sample_requests(data, LENGTH, 7, np.random.default_rng(0)) | {"bias": np.zeros((1, ROWS), np.float32)}
    parity = Parity(0.0, {f"retrieval_{name}": value for name, value in given.items()})
    return store_retrieval(config, data, folder, graph.scored_ID.numpy(), parity)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rng = np.random.default_rng(0)
    timelines = [rng.integers(2, ROWS, 6).tolist() for _ in range(60)]
    return write_dataset(tmp_path_factory.mktemp("bundle") / "data", timelines, num_items=ROWS)


@pytest.mark.parametrize("table", ["float32", "int8"])
def test_an_index_looks_through_as_many_clusters_as_it_takes(table: str, data: Dataset, tmp_path: Path) -> None:
    config = planted_config(serving={"index": "faiss", "table": table, "min_recall": 0.9, "num_candidates": 20})
    found = stored(config.model_copy(update={"max_history": LENGTH}), data, tmp_path / "bundle")
    assert found.index is not None
    assert 0.9 <= found.index["recall"] == found.recall
    assert 1 <= found.index["nprobe"] <= found.index["clusters"]
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {"query.onnx", "items.faiss", "vectors.npy"}
    assert found.parity.sample["retrieval_item"].shape == (7, 20)


def test_a_table_that_loses_too_much_is_refused(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = planted_config(serving={"table": "int8", "min_recall": 1.0, "num_candidates": 20})
    monkeypatch.setattr(bundle_retrieval, "recall_of", lambda *_: 0.5)
    with pytest.raises(InputError, match=r"serving\.table \(int8\) finds 0\.500 .* set serving\.table to float32"):
        stored(config.model_copy(update={"max_history": LENGTH}), data, tmp_path / "bundle")
