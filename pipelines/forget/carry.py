"""A checkpoint of one dataset as one of another whose ids have other numbers: rows move with the ids that they belong to.

Shapes: R = rows of a table.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys.columns import FIRST_ID, UNKNOWN_ID
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.grow import TABLE


def carried(state: Mapping[str, Tensor], old: Dataset, new: Dataset) -> dict[str, Tensor]:
    """The parameters for `new`. An id or value that `old` does not have gets the row of unknown ones; one that `new` does not
    have loses its row. Raises InputError for a table that is none of a feature, a user or an item."""
    owners = {"user": "user", "item": "item"} | {f["name"]: f["owner"] for f in new.features}
    found = {}
    for name, tensor in state.items():
        if not TABLE.search(name):
            found[name] = tensor
            continue
        table = name.split(".")[-2]
        if table not in owners:
            raise InputError(f"table {table!r} of the checkpoint is of no user, item or feature: use --method retrain")
        found[name] = tensor[_row_of(table, owners[table], old, new)].clone()
    return found


def _row_of(table: str, owner: str, old: Dataset, new: Dataset) -> Tensor:
    """For every row of the new table the row of the old one."""
    values = [
        {"user": data.user_ids, "item": data.item_ids}[table]
        if table == owner
        else [None] * FIRST_ID + data.vocabulary(owner, table)
        for data in (old, new)
    ]
    place = {value: row for row, value in enumerate(values[0]) if row >= FIRST_ID}
    row_R = [row if row < FIRST_ID else place.get(value, UNKNOWN_ID) for row, value in enumerate(values[1])]
    return torch.tensor(row_R, dtype=torch.int64)
