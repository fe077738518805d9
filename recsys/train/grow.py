"""Yesterday's checkpoint in today's larger model: vocabularies only grow and dense ids are stable, so rows are appended.

Shapes: R = rows of a table, D = width.
"""

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from recsys.columns import FIRST_ID, UNKNOWN_ID
from recsys.errors import InputError
from recsys.models.managed_collision import id_map, map_tables, resharded
from recsys.train.checkpoint import FUSED, fused_state, load_fused_state, load_model_state, model_state

TABLE = re.compile(r"\.(embeddings|embedding_bags)\.[^./]+\.weight(/|$)")  # a table, or what the optimizer keeps of its rows

NewRows = Literal["fresh", "mean"]


def training_state(model: DistributedModelParallel) -> dict[str, Tensor]:
    """Parameters and id maps, and the fused optimizer's accumulators below FUSED. A collective call."""
    return model_state(model) | {FUSED + name: tensor for name, tensor in fused_state(model).items()}


def load_training_state(model: DistributedModelParallel, state: Mapping[str, Tensor]) -> None:
    """The other way."""
    load_model_state(model, {name: tensor for name, tensor in state.items() if not name.startswith(FUSED)})
    if any(name.startswith(FUSED) for name in state):
        load_fused_state(model, {name.removeprefix(FUSED): tensor for name, tensor in state.items() if name.startswith(FUSED)})


def grow(old: Mapping[str, Tensor], fresh: Mapping[str, Tensor], *, new_rows: NewRows = "fresh") -> dict[str, Tensor]:
    """The state with which a new model goes on where the old one stopped.

    `old`: a checkpoint's tensors; `fresh`: the new model's own, just initialised; both `training_state`, or both the
    parameters alone. Old rows and dense parameters are kept bit for bit, accumulators too. New rows begin as in `fresh`, or
    as the mean of the old ids' rows; their accumulators begin at zero. A table with an id map may have any new number of
    rows, see `resharded`. Raises InputError naming the parameter when something else changed.
    """
    old = _as_wide_as(old, fresh)
    for name in sorted(old.keys() ^ fresh.keys()):
        where = "checkpoint" if name in fresh else "new model"
        raise InputError(
            f"the {where} has no {name!r}: continue with the model settings and features of the checkpoint, or train anew"
        )
    return {name: _grown(name, tensor, fresh[name], new_rows) for name, tensor in old.items()}


def _grown(name: str, old: Tensor, fresh: Tensor, new_rows: NewRows) -> Tensor:
    if old.shape == fresh.shape:
        return old.clone()
    was, now = tuple(old.shape), tuple(fresh.shape)
    if not TABLE.search(name):
        raise InputError(
            f"{name!r} has shape {now}, {was} in the checkpoint, and only tables grow: restore the setting, or train anew"
        )
    if was[1:] != now[1:]:
        raise InputError(f"table {name!r} is {now[1]} wide, {was[1]} in the checkpoint: restore the width, or train anew")
    if was[0] > now[0]:
        raise InputError(
            f"table {name!r} has {now[0]} rows, {was[0]} in the checkpoint, and a vocabulary only grows: "
            "continue from a checkpoint of this data's past, or train anew"
        )
    added = fresh[was[0] :].clone()
    if new_rows == "mean" and not name.startswith(FUSED) and was[0] > FIRST_ID:
        added[:] = old[FIRST_ID:].mean(0)
    return torch.cat([old, added])


def _as_wide_as(old: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`old` with the rows and blocks that `fresh` has for tables with an id map, where both have one."""
    for table in map_tables(fresh):
        found, wanted = id_map(old, table), id_map(fresh, table)
        if found is not None and wanted is not None:
            old = resharded(old, len(wanted.end_P), {table: len(wanted.raw_R)})
    return old


def with_unknown_rows(state: Mapping[str, Tensor], rows: Mapping[str, int]) -> dict[str, Tensor]:
    """An earlier model's parameters with `rows` of each table, by the table's name: a later id reads what an unknown one does,
    as it would from a server of that model. A table with an id map stays, it has a row for every id."""
    mapped, grown = map_tables(state), dict(state)
    for name, old in state.items():
        table = name.removesuffix(".weight").rpartition(".")[2]
        if TABLE.search(name) and table in rows and table not in mapped and len(old) < rows[table]:
            grown[name] = torch.cat([old, old[UNKNOWN_ID].expand(rows[table] - len(old), -1)])
    return grown
