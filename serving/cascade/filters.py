"""Which items may be recommended in answer to one question, and what is given way to where too few are left.

Shapes: B = questions, I = rows of the item table, E = excluded items, A = allowed items, N = items looked at.
"""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.columns import FIRST_ID
from recsys.errors import InputError
from serving.bundle.bundle import Array, Bundle
from serving.catalogue.shelf import Shelf, only
from serving.schema import Query

Level = int
AS_ASKED, SEEN_TOO, UNSOLD_TOO = range(3)  # what the caller excludes, allows or limits holds at every level
NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Filters:
    shelf: Shelf
    exclude_E: Array  # sorted, distinct: seen items and those the caller leaves out
    never_E: Array  # those the caller leaves out
    allow_A: Array | None
    categories: frozenset[int] | None
    region: str | None
    now_ms: int
    bias_1I: Array  # of all but `exclude_E`: 0 for what may be recommended, else -inf

    def permits(self, item_N: Array, level: Level) -> Array:
        """bool_N"""
        bias_1I = self._bias(None) if level == UNSOLD_TOO else self.bias_1I
        left_out_E = self.exclude_E if level == AS_ASKED else self.never_E
        return np.asarray((bias_1I[0, item_N] == 0) & ~np.isin(item_N, left_out_E) & (item_N >= FIRST_ID))

    def all(self, level: Level) -> Array:
        """All items that are permitted."""
        bias_1I = self._bias(None) if level == UNSOLD_TOO else self.bias_1I
        item_N = np.flatnonzero(bias_1I[0] == 0)
        return item_N[self.permits(item_N, level)]

    def _bias(self, now_ms: int | None) -> Array:
        return _bias(self.shelf, now_ms, self.categories, self.region, self.allow_A)


def filters(
    bundle: Bundle, shelf: Shelf, query: Query | None, *, exclude_E: Array, allow_A: Array | None, seen_L: Array, now_ms: int
) -> Filters:
    """`exclude_E`, `allow_A`: the caller's lists, None without the latter; `seen_L`: what the user has seen, empty where that
    does not matter. All in dense ids. Raises InputError for categories that the bundle does not have."""
    never_E = np.unique(exclude_E[exclude_E >= FIRST_ID]) if len(exclude_E) else NOTHING
    region, categories = (query.region, _codes(bundle, query.categories)) if query else (None, None)
    return Filters(
        shelf=shelf,
        exclude_E=np.unique(np.concatenate([never_E, seen_L])) if len(seen_L) else never_E,
        never_E=never_E,
        allow_A=allow_A,
        categories=categories,
        region=region,
        now_ms=now_ms,
        bias_1I=_bias(shelf, now_ms, categories, region, allow_A),
    )


def bias_of(filters_B: Sequence[Filters]) -> Array:
    """bias_XI, X being 1 where all questions have the same, else B."""
    first_1I = filters_B[0].bias_1I
    if all(each.bias_1I is first_1I for each in filters_B):
        return first_1I
    return np.concatenate([each.bias_1I for each in filters_B])


def _bias(
    shelf: Shelf, now_ms: int | None, categories: frozenset[int] | None, region: str | None, allow_A: Array | None
) -> Array:
    row_1I = shelf.row(now_ms, categories, region)
    return row_1I if allow_A is None else only(row_1I, allow_A)


def _codes(bundle: Bundle, names: list[str] | None) -> frozenset[int] | None:
    """Those that the bundle lacks have no items here; a question that names no other is refused, since it is a mistake."""
    if names is None:
        return None
    [values] = bundle.facts.category.values() or [()]
    if not values:
        raise InputError("categories cannot be asked for: the items of this bundle have no categories")
    codes = frozenset(FIRST_ID + values.index(name) for name in names if name in values)
    if not codes:
        given, known = reprlib.repr(names), ", ".join(values[:20])
        raise InputError(
            f"categories is {given}: name at least one that the bundle has: {known}{', ...' if values[20:] else ''}"
        )
    return codes
