"""Retrieval from smaller tables and from an index, against the exact graph in float32.

Shapes: B = requests, L = history, E = excluded, I = rows of the item table, K = items returned.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional

from recsys.columns import FIRST_ID
from recsys.export.parity import open_session
from recsys.export.retrieval import export_retrieval, shrink_file, split_query
from recsys.export.tables import quantised
from recsys.models.hstu import HSTU
from recsys.models.retriever import RetrievalGraph
from recsys.models.sasrec import SASRec

ROWS, DIM, LENGTH, K = 400, 16, 6, 20


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return functional.normalize(vectors, dim=-1)


GRAPHS: dict[str, Callable[[], RetrievalGraph]] = {
    "dot": lambda: RetrievalGraph(SASRec(dim=DIM, blocks=1, heads=2), LENGTH, torch.randn(ROWS, DIM), K),
    "cosine": lambda: RetrievalGraph(
        SASRec(dim=DIM, blocks=1, heads=2), LENGTH, torch.randn(ROWS, DIM), K, for_user=lambda x: unit(x) * 20, for_item=unit
    ),
    "narrow": lambda: RetrievalGraph(SASRec(dim=DIM, blocks=1, heads=2), LENGTH, torch.randn(ROWS, DIM), K, score_dim=8),
    "reads time": lambda: RetrievalGraph(HSTU(dim=DIM, blocks=1, heads=2), LENGTH, torch.randn(ROWS, DIM), K),
}


@pytest.fixture(scope="module", params=GRAPHS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RetrievalGraph, Path]:
    torch.manual_seed(0)
    graph, path = GRAPHS[request.param]().eval(), tmp_path_factory.mktemp("tables") / "retrieval.onnx"
    export_retrieval(graph, LENGTH, ROWS, path)
    return graph, path


def requests(batch: int, *, left: int | None = None) -> dict[str, np.ndarray]:
    """`left`: a bias leaves only so many items to each request."""
    rng = np.random.default_rng(batch)
    bias_XI = np.zeros((1, ROWS), np.float32)
    if left is not None:
        bias_XI = np.full((batch, ROWS), -np.inf, np.float32)
        for row in bias_XI:
            row[rng.permutation(ROWS)[:left]] = 0
    return {
        "history": rng.integers(FIRST_ID, ROWS, (batch, LENGTH)), "length": rng.integers(0, LENGTH + 1, batch),
        "exclude": rng.integers(0, ROWS, (batch, 7)), "bias": bias_XI,
        "time": np.cumsum(rng.integers(0, 10**7, (batch, LENGTH + 1)), axis=1),
    }  # fmt: skip


def run(path: Path, given: dict[str, np.ndarray], *names: str) -> Any:
    session = open_session(path)
    return session.run(list(names), {entry.name: given[entry.name] for entry in session.get_inputs()})


def scores(graph: RetrievalGraph, given: dict[str, np.ndarray]) -> np.ndarray:
    time_BM = torch.from_numpy(given["time"]) if graph.encoder.reads_time else None
    with torch.no_grad():
        score_BI = graph.scores(torch.from_numpy(given["history"]), torch.from_numpy(given["length"]), time_BM).numpy().copy()
    np.put_along_axis(score_BI, given["exclude"], -np.inf, axis=1)
    return score_BI + given["bias"]


def tables_of(path: Path) -> list[np.ndarray]:
    arrays = map(numpy_helper.to_array, onnx.load(path).graph.initializer)
    return [array for array in arrays if array.ndim == 2 and ROWS in array.shape and min(array.shape) > 1]


@pytest.mark.parametrize("left", [None, 5])
@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_items_are_nearly_those_of_torch(
    exported: tuple[RetrievalGraph, Path], kind: Any, left: int | None, tmp_path: Path
) -> None:
    graph, source = exported
    path = tmp_path / "retrieval.onnx"
    path.write_bytes(source.read_bytes())
    shrink_file(path, kind, ROWS)
    given = requests(16, left=left)
    expected_BI = scores(graph, given)
    item_BK, score_BK = run(path, given, "item", "score")
    best_BK = -np.sort(-expected_BI, axis=1)[:, :K]
    np.testing.assert_array_equal(np.isfinite(score_BK), np.isfinite(best_BK))
    there_BK = np.isfinite(score_BK)
    tolerance = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2}[kind] * np.abs(best_BK[there_BK]).max()
    own_BK = np.take_along_axis(expected_BI, item_BK, axis=1)
    np.testing.assert_allclose(score_BK[there_BK], own_BK[there_BK], atol=tolerance, rtol=0)
    np.testing.assert_allclose(score_BK[there_BK], best_BK[there_BK], atol=tolerance, rtol=0)
    assert (item_BK[there_BK] >= FIRST_ID).all()
    assert (score_BK[:, 1:] <= score_BK[:, :-1]).all()


def test_a_table_is_stored_once_and_in_as_few_bytes_as_asked(exported: tuple[RetrievalGraph, Path], tmp_path: Path) -> None:
    graph, source = exported
    distinct = 1 if torch.equal(graph.scored_ID, graph.item_ID) else 2
    for kind, bytes_a_number in (("float32", 4), ("float16", 2), ("int8", 1)):
        path = tmp_path / f"{kind}.onnx"
        path.write_bytes(source.read_bytes())
        shrink_file(path, kind, ROWS)  # type: ignore[arg-type]
        assert [table.dtype.itemsize for table in tables_of(path)] == [bytes_a_number] * distinct


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_request_gets_the_same_alone_and_among_others(
    exported: tuple[RetrievalGraph, Path], kind: Any, tmp_path: Path
) -> None:
    path = tmp_path / "retrieval.onnx"
    path.write_bytes(exported[1].read_bytes())
    shrink_file(path, kind, ROWS)
    given = requests(8)
    together = run(path, given, "item", "score")
    for b in range(8):
        alone = run(
            path, {name: value if name == "bias" else value[b : b + 1] for name, value in given.items()}, "item", "score"
        )
        np.testing.assert_allclose(alone[1][0], together[1][b], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-5), ("float16", 1e-2), ("int8", 0.1)])
def test_the_vector_of_a_request(exported: tuple[RetrievalGraph, Path], kind: Any, tolerance: float, tmp_path: Path) -> None:
    graph, source = exported
    split_query(source, tmp_path / "query.onnx", kind, ROWS)
    given = requests(16)
    time_BM = torch.from_numpy(given["time"]) if graph.encoder.reads_time else None
    with torch.no_grad():
        expected_BD = graph.users(torch.from_numpy(given["history"]), torch.from_numpy(given["length"]), time_BM).numpy()
    [user_BD] = run(tmp_path / "query.onnx", given, "user")
    np.testing.assert_allclose(user_BD, expected_BD, atol=tolerance * np.abs(expected_BD).max(), rtol=0)
    assert len(tables_of(tmp_path / "query.onnx")) == 1, "what is only scored is left out"


def test_rows_are_rounded_to_half_a_scale() -> None:
    values_ID = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    values_ID[0] = 0
    row_ID, scale_I = quantised(values_ID)
    assert np.abs(row_ID[1:].astype(int)).max(axis=1).tolist() == [127] * 49
    assert (np.abs(row_ID * scale_I[:, None] - values_ID) <= scale_I[:, None] / 2 + 1e-7).all()
    assert not row_ID[0].any()
