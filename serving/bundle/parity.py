"""A runtime must give here what the same files gave when they were written.

B = queries, K = candidates, T = tasks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from recsys.errors import InputError
from serving.bundle.finder import Finder

Array = NDArray[Any]
TOLERANCE = 1e-4


def check_parity(path: Path, finders: Mapping[str, Finder], ranking: ort.InferenceSession | None) -> None:
    """`path`: inputs and outputs by `retrieval_history` and so on. Raises InputError where an output differs."""
    sample, same = np.load(path, allow_pickle=False), True
    for name, finder in finders.items():
        item_BK, score_BK = finder({each: sample[f"{name}_{each}"] for each in finder.inputs})
        expected_item_BK, expected_score_BK = sample[f"{name}_item"], sample[f"{name}_score"]
        same &= _close(score_BK, expected_score_BK)
        same &= bool((item_BK == expected_item_BK)[_settled(expected_score_BK)].all())
    if ranking is not None:
        given = {entry.name: sample[f"ranking_{entry.name}"] for entry in ranking.get_inputs()}
        [probability_BKT] = ranking.run(["probability"], given)
        same &= _close(probability_BKT, sample["ranking_probability"])
    if not same:
        session = next(iter(finders.values())).session
        raise InputError(
            f"{path.parent} does not give the outputs recorded in {path.name} with onnxruntime {ort.__version__} on "
            f"{session.get_providers()[0]}: install the locked onnxruntime, or make the bundle again with `recsys export`"
        )


def _close(found: Array, expected: Array) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def _settled(score_BK: Array) -> Array:
    """Places whose score differs from both neighbours' by more than the tolerance, so that no other item may stand there."""
    with np.errstate(invalid="ignore"):  # -inf minus -inf: not a gap
        gap_B = -np.diff(score_BK, axis=1) > 4 * TOLERANCE * (1 + np.abs(score_BK[:, :1]))
    edge_B1 = np.ones((len(score_BK), 1), dtype=bool)
    return np.hstack([edge_B1, gap_B]) & np.hstack([gap_B, ~edge_B1]) & np.isfinite(score_BK)
