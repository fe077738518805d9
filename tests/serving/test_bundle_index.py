"""A bundle whose retrieval is an index gives what the graph that scores everything gives; no torch comes into the process.

Shapes: B = requests, L = history, E = excluded, I = rows of the item table, D = width, K = items.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from tiny_bundle import MAX_HISTORY, NUM_CANDIDATES, ROWS, build_bundle

from recsys import item_index
from recsys.artefact import read_manifest, write_artefact
from recsys.errors import InputError
from recsys.item_index import build
from serving.bundle.bundle import Bundle
from serving.cascade.candidates import find

D = 6
VECTOR_ID = np.random.default_rng(3).normal(size=(ROWS, D)).astype(np.float32)
QUERY = """
<ir_version: 10, opset_import: ["": 20]>
query (int64[B, L] history, int64[B] length) => (float[B, 6] user)
<int64[1] one = {1}, int64 zero = {0}>
{
  column = Unsqueeze(length, one)
  before = Sub(column, one)
  last = Max(before, zero)
  newest = GatherElements<axis = 1>(history, last)
  place = Squeeze(newest, one)
  user = Gather(items, place)
}
"""


def user_vectors(history_BL: np.ndarray, length_B: np.ndarray) -> np.ndarray:
    return VECTOR_ID[history_BL[np.arange(len(history_BL)), np.maximum(length_B - 1, 0)]]


def requests(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    given = {"history": rng.integers(2, ROWS, (batch, MAX_HISTORY)), "length": rng.integers(0, MAX_HISTORY + 1, batch)}
    return {**given, "exclude": rng.integers(0, ROWS, (batch, 3)), "bias": np.zeros((1, ROWS), np.float32)}


def exact(given: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    score_BI = user_vectors(given["history"], given["length"]) @ VECTOR_ID.T + given["bias"]
    np.put_along_axis(score_BI, given["exclude"], -np.inf, axis=1)
    score_BI[:, :2] = -np.inf
    item_BK = np.argsort(-score_BI, axis=1, kind="stable")[:, :NUM_CANDIDATES]
    return item_BK, np.take_along_axis(score_BI, item_BK, axis=1)


def indexed_bundle(folder: Path, *, shift: float = 0.0) -> Path:
    source = build_bundle(folder.with_name("source"), tasks=())
    kept = {name: value for name, value in read_manifest(source, "bundle").items() if name in ("name", "model", "lineage")}
    with write_artefact(folder, "bundle", **kept) as (scratch, manifest):
        for path in source.iterdir():
            if path.name not in ("manifest.json", "retrieval.onnx"):
                (scratch / path.name).write_bytes(path.read_bytes())
        np.save(scratch / "vectors.npy", VECTOR_ID)
        clusters = build(VECTOR_ID, scratch / "items.faiss", seed=0)
        graph = parser.parse_model(QUERY)
        graph.graph.initializer.append(numpy_helper.from_array(VECTOR_ID, "items"))
        onnx.save(graph, scratch / "query.onnx")
        given = requests(3)
        item_BK, score_BK = exact(given)
        sample = {**given, "item": item_BK, "score": score_BK + shift}
        np.savez(scratch / "parity.npz", **{f"retrieval_{name}": value for name, value in sample.items()})
        manifest["model"] = {**kept["model"], "index": {"nprobe": clusters, "clusters": clusters, "recall": 1.0}}
    return folder


@pytest.mark.parametrize("below", [0, 10**9], ids=["index", "few items"])
def test_candidates_are_those_of_scoring_everything(tmp_path: Path, below: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "EXACT_BELOW", below)
    bundle = Bundle.load(indexed_bundle(tmp_path / "bundle"))
    given = requests(8)
    given["bias"][0, 5:20] = -np.inf
    found, (item_BK, score_BK) = find(bundle, given, np.full(8, 5)), exact(given)
    there_BK = np.isfinite(score_BK)
    np.testing.assert_array_equal(found.item_BK, np.where(there_BK, item_BK, 0))
    np.testing.assert_allclose(found.score_BK, score_BK, rtol=1e-5)
    assert not found.fill_BK.any()


def test_an_index_that_answers_differently_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not give the outputs recorded in parity\.npz"):
        Bundle.load(indexed_bundle(tmp_path / "bundle", shift=1e-2))


def test_no_torch_comes_with_the_index(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.bundle.bundle import Bundle; Bundle.load(Path(sys.argv[1]));"
        "print(sorted({'torch', 'faiss', 'polars', 'onnx'} & set(sys.modules)))"
    )
    folder = indexed_bundle(tmp_path / "bundle")
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['faiss']"
