"""Tables with fewer rows than ids: a map gives rows to the ids that are worth one. Plain functions on a checkpoint's tensors.

TorchRec keeps the map as parallel arrays, one block per process; `recsys.models.embeddings` trains it, this file reads it.
Shapes: R = rows of the table, I = ids (rows of the table, had it one per id), L = live ids, D = width, P = processes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from recsys.errors import InputError
from recsys.spec import Spec

MAPS = "_managed_collision_collection._managed_collision_modules."  # TorchRec's name of the maps below a collection
TABLES = "_embedding_module."
RAW, ROW, SEGMENTS = "_mch_sorted_raw_ids", "_mch_remapped_ids_mapping", "_output_segments_tensor"
COUNTS, LAST_READ = "_mch_counts", "_mch_last_access_iter"
EMPTY = torch.iinfo(torch.int64).max  # in the place of an id: no id has this row


class ManagedCollision(Spec):
    """Zero-collision hashing with eviction: `rows` vectors for any number of ids, and the ids worth it have one to themselves.

    Collisionless tables of Liu et al. 2022, "Monolith", https://arxiv.org/abs/2209.07663, in the form of TorchRec's
    MCHManagedCollisionModule. An id without a row reads the fallback row, the last one of its process's block, which all such
    ids of the process train together. Evaluation never changes the map. A row that changes hands begins anew, both its
    vector and its accumulator.

    Differs from the paper: the number of rows is fixed, so an id loses its row to a better one, not to old age; rows are
    handed out every `interval` steps, and rare ids are not kept out while there are free rows.
    """

    kind: Literal["managed_collision"] = "managed_collision"
    rows: int = Field(ge=2, description="vectors of the table, one fallback row per process among them")
    eviction: Literal["lfu", "lru", "distance_lfu"] = Field(
        "distance_lfu",
        description="who loses its row: the id read least often (which favours those that came early: reads without a row are "
        "not counted), the one read longest ago, or the one with the fewest reads divided by the steps since its last",
    )
    interval: int = Field(10, ge=1, description="steps between two revisions of the map, each a sort of all rows")


@dataclass(frozen=True)
class IdMap:
    """The map of one table, read from a checkpoint."""

    prefix: str  # of the map's tensors
    table: str  # name of the table's weights
    raw_R: Tensor  # id, EMPTY where none; sorted within each process's block
    row_R: Tensor  # its row
    end_P: Tensor  # first row after each process's block


def id_map(state: Mapping[str, Tensor], table: str) -> IdMap | None:
    """The map of a table; None where every id has its own row."""
    for name in state:
        if name.endswith(f"{MAPS}{table}.{RAW}"):
            prefix, owner = name.removesuffix(RAW), name.partition(MAPS)[0]
            segment = state[prefix + SEGMENTS]
            weights = next(w for w in state if w.startswith(owner) and _is_of_rows(w, table))
            return IdMap(prefix, weights, state[name], state[prefix + ROW], segment[segment >= 0][1:])
    return None


def _is_of_rows(name: str, table: str) -> bool:
    """Whether a tensor is the table with a map, or what the optimizer keeps of each of its rows."""
    return re.search(rf"{TABLES}\w+\.{re.escape(table)}\.weight(/|$)", name) is not None


def remapped(state: Mapping[str, Tensor], table: str, num_ids: int) -> Tensor:
    """row_I: the row of the table that each id reads; the fallback row of its process for an id without one."""
    found = id_map(state, table)
    if found is None:
        return torch.arange(num_ids)
    row_I = found.end_P[torch.arange(num_ids) % len(found.end_P)] - 1  # an id belongs to the process that is its remainder
    here_R = found.raw_R < num_ids
    row_I[found.raw_R[here_R]] = found.row_R[here_R]
    return row_I


def folded(state: Mapping[str, Tensor], table: str, num_ids: int) -> Tensor:
    """vector_ID: what the model reads for each id, the form export takes; a table without a map is returned as it is."""
    found = id_map(state, table)
    if found is not None:
        return state[found.table][remapped(state, table, num_ids)]
    weights = [name for name in state if re.search(rf"\.(embeddings|embedding_bags)\.{re.escape(table)}\.weight$", name)]
    assert len(weights) == 1, f"{len(weights)} tables named {table}"
    return state[weights[0]]


def map_tables(state: Mapping[str, Tensor]) -> list[str]:
    """Tables that have a map."""
    return [name.removesuffix(f".{RAW}").rpartition(".")[2] for name in state if name.endswith(f".{RAW}")]


def resharded(state: Mapping[str, Tensor], processes: int, rows: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """The state as `processes` processes hold it: their number decides which block of rows an id may have a row in.

    `rows`: tables with another number of rows from now on. `state` may hold the optimizer's state too. Every id keeps its
    vector and accumulator unless its new block is too small for all: then the most valuable keep theirs. Each new fallback row
    is the mean of the old ones.
    """
    state = dict(state)
    for table in map_tables(state):
        found = id_map(state, table)
        assert found is not None
        new_rows = (rows or {}).get(table, len(found.raw_R))
        if (len(found.end_P), len(found.raw_R)) != (processes, new_rows):
            state |= _resharded_table(state, table, found, _segments(new_rows, processes))
    return state


def require_rows(table: str, rows: int, processes: int) -> None:
    """Every process needs a fallback row and one more."""
    if min(end - start for start, end in pairwise(_segments(rows, processes))) < 2:
        raise InputError(f"tables.{table}.rows {rows} is too few for {processes} processes: raise it")


def _segments(rows: int, processes: int) -> list[int]:
    """First row of every block, and the end of the last: TorchRec's division, all blocks but the last of one size."""
    block = -(-rows // processes)
    return [min(rows, block * process) for process in range(processes + 1)]


def _resharded_table(state: Mapping[str, Tensor], table: str, old: IdMap, segments: list[int]) -> dict[str, Tensor]:
    raw_R, from_R = _placed(state, old, segments)
    taken_R = from_R >= 0
    segment = torch.full_like(state[old.prefix + SEGMENTS], -1)
    segment[: len(segments)] = torch.tensor(segments)
    changed = {RAW: raw_R, ROW: torch.arange(len(raw_R)), SEGMENTS: segment}
    for name in (COUNTS, LAST_READ):
        if old.prefix + name in state:
            changed[name] = torch.where(taken_R, state[old.prefix + name][from_R], 0)
    changed = {old.prefix + name: tensor for name, tensor in changed.items()}
    for name in [name for name in state if _is_of_rows(name, table)]:
        changed[name] = state[name].new_zeros(len(raw_R), *state[name].shape[1:])
        changed[name][taken_R] = state[name][old.row_R[from_R[taken_R]]]
        changed[name][torch.tensor(segments[1:]) - 1] = state[name][old.end_P - 1].mean(0)
    return changed


def _placed(state: Mapping[str, Tensor], old: IdMap, segments: list[int]) -> tuple[Tensor, Tensor]:
    """raw_R, the new map's ids, and from_R, the place in the old map of what each new row holds, -1 where nothing."""
    live_L = (old.raw_R != EMPTY).nonzero().squeeze(1)
    live_L = live_L[_value(state, old)[live_L].argsort(descending=True, stable=True)]
    raw_R, from_R = torch.full((segments[-1],), EMPTY), torch.full((segments[-1],), -1)
    for process, (start, end) in enumerate(pairwise(segments)):
        mine = live_L[old.raw_R[live_L] % (len(segments) - 1) == process][: end - start - 1]
        mine = mine[old.raw_R[mine].argsort()]
        raw_R[start : start + len(mine)], from_R[start : start + len(mine)] = old.raw_R[mine], mine
    return raw_R, from_R


def _value(state: Mapping[str, Tensor], found: IdMap) -> Tensor:
    """Who keeps its row where not all can: the ids read most often, or most recently where reads are not counted."""
    return state[found.prefix + COUNTS] if found.prefix + COUNTS in state else state[found.prefix + LAST_READ]
