"""Slices of a test split: those every evaluation has, and those that a config names by SQL conditions on users or items.

Shapes: U = users judged, I = rows of the item table, K = list length, S = users of one slice, N = rows that are decoded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError

from recsys.columns import FIRST_ID, ITEM_ID, ITEMS_FILE, TRAIN_COUNT, USER_ID
from recsys.data.check import first_line
from recsys.dataset import Dataset, map_file
from recsys.errors import InputError
from recsys.evaluate.judged import Judged
from recsys.metrics.ranking import rank_metrics
from recsys.metrics.slices import ITEM_SLICES, RULES, USER_SLICES, history_slices, popularity_slices, targets_of

HISTORY_LENGTH, TITLE = "history_length", "title"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it becomes part of a metric's name
NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?$"  # a text like 0213 is a name that has digits
EXAMPLES = {"user": "history_length >= 10", "item": "train_count = 0"}


@dataclass(frozen=True, eq=False)
class Slices:
    """Name -> who is in it. A slice of items keeps the targets among them, a slice of users keeps the users."""

    item: dict[str, np.ndarray]  # mask_I
    user: dict[str, np.ndarray]  # mask_U

    def __or__(self, other: "Slices") -> "Slices":
        return Slices(self.item | other.item, self.user | other.user)


def built_in_slices(data: Dataset, judged: Judged) -> Slices:
    """Head, torso and tail targets, cold and warm users: `recsys.metrics.slices.RULES`."""
    slice_I, slice_U = popularity_slices(data.train_count_I), history_slices(judged.history.lengths)
    return Slices(
        {name: slice_I == place for place, name in enumerate(ITEM_SLICES)},
        {name: slice_U == place for place, name in enumerate(USER_SLICES)},
    )


def config_slices(data: Dataset, judged: Judged, *, user: Mapping[str, str], item: Mapping[str, str]) -> Slices:
    """Those of `evaluation.user_slices` and `item_slices`. Raises InputError where a name is taken or a rule does not fit."""
    for key, rules, taken in (("user", user, [*RULES]), ("item", item, [*RULES, *user])):
        for name in rules:
            if name in taken:
                raise InputError(
                    f"evaluation.{key}_slices.{name} has the name of another slice ({', '.join(taken)}): rename it"
                )
            if not NAME.fullmatch(name):
                raise InputError(
                    f"evaluation.{key}_slices: {name!r} is no name: use letters, digits and any of . _ - after the first"
                )
    mask_I = {name: _mask(name, rule, "item", data, np.arange(data.num_items), judged) for name, rule in item.items()}
    for mask in mask_I.values():
        mask[:FIRST_ID] = False
    return Slices(mask_I, {name: _mask(name, rule, "user", data, judged.user_U, judged) for name, rule in user.items()})


def in_slices(
    item_UK: np.ndarray, judged: Judged, per_user: Mapping[str, np.ndarray], ks: Sequence[int], slices: Slices
) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
    """Name, row_S and the values of these users, of each slice: of items over the targets among them, so that the values are
    new and only those of accuracy; of users as in `per_user`."""
    for name, mask_I in slices.item.items():
        row_S, targets = targets_of(judged.relevant, mask_I, True)
        yield name, row_S, rank_metrics(item_UK[row_S], targets, ks)
    for name, mask_U in slices.user.items():
        row_S = np.flatnonzero(mask_U)
        yield name, row_S, {metric: value_U[row_S] for metric, value_U in per_user.items()}


def _mask(name: str, rule: str, owner: str, data: Dataset, row_N: np.ndarray, judged: Judged) -> np.ndarray:
    """Where the rule holds; where it is neither true nor false, as for a missing value, it does not."""
    known, said = _columns(data, owner), f"evaluation.{owner}_slices.{name} = {rule!r}"
    try:
        expression = pl.sql_expr(rule)
    except PolarsError as error:
        raise InputError(f"{said} is no SQL condition ({first_line(error)}): write one, such as {EXAMPLES[owner]}") from error
    wanted = expression.meta.root_names()
    if missing := [column for column in wanted if column not in known]:
        raise InputError(f"{said} reads {missing[0]!r}, which {owner}s do not have: choose among {', '.join(known)}")
    # The first known column says how many rows there are where the rule reads none.
    frame = pl.DataFrame({column: _column(column, data, owner, row_N, judged) for column in dict.fromkeys((known[0], *wanted))})
    try:
        found = frame.select(expression.alias(name)).to_series()
    except PolarsError as error:
        types = ", ".join(f"{column}: {frame.schema[column]}" for column in wanted)
        raise InputError(f"{said} does not fit the columns ({types}): {first_line(error)}") from error
    if found.dtype != pl.Boolean:
        raise InputError(f"{said} gives {found.dtype}, not true or false: write a condition, such as {EXAMPLES[owner]}")
    if len(found) != len(row_N):
        raise InputError(f"{said} gives one value for all {owner}s: write a condition on a column ({', '.join(known)})")
    return found.fill_null(False).to_numpy(writable=True)


def _columns(data: Dataset, owner: str) -> list[str]:
    """What a rule can read, beginning with a column that costs nothing."""
    features = [each["name"] for each in data.features if each["owner"] == owner]
    if owner == "user":
        return list(dict.fromkeys([HISTORY_LENGTH, USER_ID, *features]))
    title = [TITLE] if TITLE in map_file(data.folder / ITEMS_FILE).column_names else []
    return list(dict.fromkeys([TRAIN_COUNT, ITEM_ID, *title, *features]))


def _column(name: str, data: Dataset, owner: str, row_N: np.ndarray, judged: Judged) -> pl.Series:
    match name:
        case "history_length" if owner == "user":
            return pl.Series(judged.history.lengths)
        case "user_id" if owner == "user":
            return pl.Series(data.user_ids, dtype=pl.String).gather(row_N)
        case "train_count" if owner == "item":
            return pl.Series(data.train_count_I)
        case "item_id" if owner == "item":
            return pl.Series(data.item_ids, dtype=pl.String)
        case "title" if owner == "item" and TITLE in map_file(data.folder / ITEMS_FILE).column_names:
            return pl.Series(map_file(data.folder / ITEMS_FILE).column(TITLE).to_pylist(), dtype=pl.String)
        case _:
            return _decoded(name, data, owner, row_N)


def _decoded(name: str, data: Dataset, owner: str, row_N: np.ndarray) -> pl.Series:
    """The values of a feature, as numbers where all its values are; null where unknown. Several values are a list of texts."""
    [multi_valued] = [each["multi_valued"] for each in data.features if (each["name"], each["owner"]) == (name, owner)]
    codes = data.codes(name, owner).take(row_N)
    value = pl.Series([None] * FIRST_ID + data.vocabulary(owner, name), dtype=pl.String)
    if multi_valued:
        flat = value.gather(codes.item_E).to_arrow()
        lists = pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(codes.offset_U1, pa.int64()), flat)))
        return lists.list.drop_nulls()
    if value.drop_nulls().str.contains(NUMBER).all():
        value = value.cast(pl.Float64 if value.drop_nulls().str.contains(".", literal=True).any() else pl.Int64)
    return value.gather(codes.item_E)
