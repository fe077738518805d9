"""The search inside ONNX against the trained generator: jagged input, TorchRec's tables and the search in torch.

Shapes: B = requests, E = excluded items, K = items returned, D = width.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recsys.columns import FIRST_ID
from recsys.evaluate import padded
from recsys.export.parity import BATCHES, TOLERANCE, Parity, as_ids, histories, open_session, verdict
from recsys.generate.beam import beam_search
from recsys.jagged import Jagged
from recsys.models.item_codes import ItemCodes

LEFT = 3  # items, where an exclusion takes almost all of the trie
SAMPLE = 7  # requests that a server checks its runtime with


@torch.no_grad()
def check_generation(model: nn.Module, codes: ItemCodes, path: Path, *, max_history: int, seed: int) -> Parity:
    """`model` is the trained Generator. Raises InputError when scores differ by more than TOLERANCE, or items do whose scores
    are further apart than that.

    A prefix that is kept or dropped by less than rounding changes what is found, so such requests are held to the scores that
    the trained model gives to the items found, and not to the same items.
    """
    run, rng = open_session(path), np.random.default_rng(seed)
    item_ID = model.item_vectors(model.embeddings(codes.all()), codes.known_I)
    errors: list[float] = []
    sample: dict[str, np.ndarray] = {}
    for batch, length in itertools.product(BATCHES, (0, 1, max_history)):
        history = histories(rng, batch, length, codes.num_items)
        history_BL, length_B = (tensor.numpy() for tensor in padded(history))
        time_BM = np.cumsum(rng.integers(0, 10**7, (batch, history_BL.shape[1] + 1)), axis=1)
        hidden_BD = _hidden(model, item_ID, history, time_BM)
        for exclude_BE in _exclusions(rng, batch, codes.num_items):
            given = {"history": history_BL, "length": length_B, "exclude": exclude_BE, "time": time_BM}
            inputs = {entry.name: given[entry.name] for entry in run.get_inputs()}
            item_BK, score_BK = run.run(["item", "score"], inputs)
            margins = [torch.full((batch,), torch.inf, device=hidden_BD.device)]
            exclude = torch.from_numpy(exclude_BE).to(hidden_BD.device)
            found = beam_search(model.decoder, model.trie, hidden_BD, exclude, item_BK.shape[1], margins)
            expected_item_BK, expected_BK = (tensor.cpu().numpy() for tensor in found)
            settled_B = (torch.stack(margins).amin(0) > TOLERANCE).cpu().numpy()
            errors.append(_scores_error(model, hidden_BD, item_BK, score_BK, exclude_BE))
            errors.append(
                _search_error(item_BK[settled_B], score_BK[settled_B], expected_item_BK[settled_B], expected_BK[settled_B])
            )
            if batch == max(BATCHES) and length == max_history and not sample:
                rows = np.flatnonzero(settled_B)[:SAMPLE] if settled_B.any() else np.arange(1)
                wanted = {**inputs, "item": expected_item_BK, "score": expected_BK}
                sample = {name: value[rows] for name, value in wanted.items()}
    return verdict("generation", path, errors, sample)


def _hidden(model: nn.Module, item_ID: Tensor, history: Jagged, time_BM: np.ndarray) -> Tensor:
    """The state after each history, by the path that training takes."""
    ids = as_ids(history).to(item_ID.device)
    inside_BM = np.arange(time_BM.shape[1]) <= history.lengths[:, None]
    hidden_MD: Tensor = model(ids, item_ID, torch.from_numpy(time_BM[inside_BM]).to(item_ID.device))
    return hidden_MD[(ids.length_B + 1).cumsum(0) - 1]


def _exclusions(rng: np.random.Generator, batch: int, num_items: int) -> Iterator[np.ndarray]:
    """A few items, then, for a batch that memory bears, all but LEFT; with reserved ids and items that come twice."""
    yield rng.integers(0, num_items, (batch, 5))
    if batch < max(BATCHES):
        all_BE = np.stack([rng.permutation(np.arange(FIRST_ID, num_items)) for _ in range(batch)])[:, LEFT:]
        yield np.concatenate([all_BE, all_BE[:, :2], np.zeros((batch, 1), np.int64)], axis=1)


def _scores_error(
    model: nn.Module, hidden_BD: Tensor, item_BK: np.ndarray, score_BK: np.ndarray, exclude_BE: np.ndarray
) -> float:
    """Against what the trained model gives to the items found, code by code; infinite where an item must not be there."""
    finite_BK = np.isfinite(score_BK)
    for item_K, finite_K, exclude_E in zip(item_BK, finite_BK, exclude_BE, strict=True):
        found = item_K[finite_K]
        if len(np.unique(found)) < len(found) or (found < FIRST_ID).any() or np.isin(found, exclude_E).any():
            return float("inf")
    hidden_BKD = hidden_BD.unsqueeze(1).expand(-1, item_BK.shape[1], -1)
    item = torch.from_numpy(item_BK).to(hidden_BD.device)
    own_BK = model.decoder.log_probs(model.trie, hidden_BKD, item).sum(-1).cpu().numpy()
    return float(np.abs(score_BK[finite_BK] - own_BK[finite_BK]).max(initial=0.0))


def _search_error(item_BK: np.ndarray, score_BK: np.ndarray, expected_item_BK: np.ndarray, expected_BK: np.ndarray) -> float:
    """Largest difference of scores; infinite where the items differ though their scores are apart."""
    finite_BK = np.isfinite(expected_BK)
    if not (np.isfinite(score_BK) == finite_BK).all():
        return float("inf")
    with np.errstate(invalid="ignore"):  # -inf minus -inf: no gap
        gap_BK = -np.diff(expected_BK, axis=1, append=-np.inf) > 2 * TOLERANCE
    apart_BK = finite_BK & gap_BK & np.roll(gap_BK, 1, axis=1)
    apart_BK[:, 0] = (finite_BK & gap_BK)[:, 0]
    apart_BK[:, -1] = False  # the next one is not known
    if (item_BK != expected_item_BK)[apart_BK].any():
        return float("inf")
    return float(np.abs(score_BK[finite_BK] - expected_BK[finite_BK]).max(initial=0.0))
