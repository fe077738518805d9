"""From items to ids that no two share: fit, number what collides, extend. Shapes: I = rows of the item table, N = items,
D = width, T = levels, L = levels before the last."""

from dataclasses import dataclass

import numpy as np

from recsys.columns import FIRST_ID
from recsys.errors import InputError
from recsys.generate.ids import NO_CODE, SemanticIds
from recsys.generate.ids_config import IdsConfig
from recsys.generate.items import Items, State


@dataclass(frozen=True)
class Codebook:
    """What gives an item its codes: the states of vectors and quantizer, and the mean of the vectors they were fitted to."""

    vectors: State
    quantizer: State
    mean_D: np.ndarray


@dataclass(frozen=True)
class Assigned:
    """`code_NL`: codes before the last level. `known_N`: items that have a vector. `vector_ND`: no width if none are read."""

    ids: SemanticIds
    codebook: Codebook
    code_NL: np.ndarray
    known_N: np.ndarray
    vector_ND: np.ndarray


def assign(config: IdsConfig, items: Items, seed: int) -> Assigned:
    """Fit vectors and codes to all items and give each an id. Raises InputError beyond a limit."""
    row_N, quantizer = items.row_N, config.quantizer
    if not len(row_N):
        raise InputError(f"{items.data.folder} has no items: prepare a dataset that has some")
    state = config.vectors.fit(items, seed) if quantizer.reads_vectors else {}
    vector_ND, known_N = _vectors(config, items, state)
    codes, fitted = quantizer.fit(items, row_N[known_N], vector_ND[known_N], seed)
    codebook = Codebook(state, fitted, vector_ND[known_N].mean(0))
    code_NL = np.empty((len(row_N), codes.shape[1]), np.int32)
    code_NL[known_N] = codes
    if not known_N.all():
        mean_ND = np.tile(codebook.mean_D, (int((~known_N).sum()), 1))
        code_NL[~known_N] = quantizer.encode(items, row_N[~known_N], mean_ND, fitted)
    number_N = numbers(code_NL)
    _check_collisions(config, items, row_N, code_NL, number_N)
    ids = _ids(code_NL, number_N, quantizer.sizes(fitted), int(number_N.max()) + config.spare + 1)
    return Assigned(ids, codebook, code_NL, known_N, vector_ND)


def extend(config: IdsConfig, items: Items, old: SemanticIds, codebook: Codebook) -> Assigned:
    """Ids of a dataset that has grown: those of old items stay, new ones get the nearest codes and the next free number."""
    row_N, before, levels = items.row_N, old.num_items - FIRST_ID, len(config.quantizer.sizes(codebook.quantizer))
    vector_ND, known_N = _vectors(config, items, codebook.vectors)
    new_ND = np.where(known_N[:, None], vector_ND, codebook.mean_D)[before:].astype(np.float32)
    old_NT = old.code_IT[FIRST_ID:]
    code_NL = np.concatenate([old_NT[:, :levels], config.quantizer.encode(items, row_N[before:], new_ND, codebook.quantizer)])
    number_N = numbers(code_NL)
    assert old.levels == levels or (number_N[:before] == old_NT[:, levels]).all(), "numbers go by row, so old items keep theirs"
    _check_collisions(config, items, row_N, code_NL, number_N)
    if old.levels == levels and number_N.any():
        clash = int(number_N.argmax())
        raise InputError(
            f"new item {items.names(row_N[clash : clash + 1])} has all codes of another item, and the ids have no last level "
            "to tell them apart: make them again with `recsys ids --anew`, with spare above 0"
        )
    last = 1 if old.levels == levels else max(old.sizes[levels], int(number_N.max()) + 1)
    return Assigned(_ids(code_NL, number_N, old.sizes[:levels], last), codebook, code_NL, known_N, vector_ND)


def numbers(code_NL: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... among the items with the same codes, by ascending row."""
    _, group_N = np.unique(code_NL, axis=0, return_inverse=True)
    order = np.argsort(group_N.ravel(), kind="stable")
    in_order = group_N.ravel()[order]
    number_N = np.empty(len(order), np.int32)
    number_N[order] = np.arange(len(order)) - np.searchsorted(in_order, in_order)
    return number_N


def _ids(code_NL: np.ndarray, number_N: np.ndarray, sizes: tuple[int, ...], last: int) -> SemanticIds:
    """The last level is left out where it would have one code."""
    code_NT = code_NL if last == 1 else np.column_stack([code_NL, number_N])
    reserved = np.full((FIRST_ID, code_NT.shape[1]), NO_CODE)
    return SemanticIds(np.concatenate([reserved, code_NT]).astype(np.int32), sizes if last == 1 else (*sizes, last))


def _vectors(config: IdsConfig, items: Items, state: State) -> tuple[np.ndarray, np.ndarray]:
    """vector_ND, and whether an item has one. Where none are read, vectors have no width and all items are known."""
    row_N = items.row_N
    if not config.quantizer.reads_vectors:
        return np.zeros((len(row_N), 0), np.float32), np.ones(len(row_N), bool)
    vector_ND = config.vectors(items, state)[FIRST_ID:]
    known_N = np.asarray(vector_ND.any(axis=1))
    _check_content(config, items, row_N, known_N)
    return vector_ND, known_N


def _check_content(config: IdsConfig, items: Items, row_N: np.ndarray, known_N: np.ndarray) -> None:
    missing, limit = row_N[~known_N], config.limits.max_without_content
    if len(missing) == len(row_N) or len(missing) > limit * len(row_N):
        what = "content" if config.vectors.kind == "content" else "vector"
        raise InputError(
            f"{len(missing)} of {len(row_N)} items have no {what} (such as {items.names(missing)}), more than "
            f"limits.max_without_content {limit} allows: give them a title or features, choose other vectors, or raise it"
        )


def _check_collisions(config: IdsConfig, items: Items, row_N: np.ndarray, code_NL: np.ndarray, number_N: np.ndarray) -> None:
    limit, largest = config.limits.max_collisions, int(number_N.argmax())
    if number_N[largest] < limit:
        return
    same = row_N[(code_NL == code_NL[largest]).all(axis=1)]
    raise InputError(
        f"{len(same)} items share all codes (such as {items.names(same)}), more than limits.max_collisions {limit} allows: "
        "give vectors that tell them apart (vectors.kind joint), more quantizer.levels or codes, or raise the limit"
    )
