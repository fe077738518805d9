"""Minimum counts: items and users with too few timeline events go, until none is left (k-core)."""

from collections.abc import Callable, Iterator

import numpy as np
from pydantic import Field

from recsys.errors import InputError
from recsys.spec import Spec

Pairs = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]  # user and item codes of timeline events, part by part


class Filters(Spec):
    min_user_events: int = Field(1, ge=0, description="timeline events a user needs; 0 and 1 keep everyone")
    min_item_events: int = Field(1, ge=0, description="timeline events an item needs; 0 and 1 keep everything")
    iterate: bool = Field(True, description="until every user and item left has enough; false: items once, then users once")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="stop when more rows than this go to quarantine")
    max_drop_share: float = Field(0.5, ge=0, le=1, description="stop when minimum counts drop more rows than this")


def k_core(pairs: Pairs, num_users: int, num_items: int, filters: Filters) -> tuple[np.ndarray, np.ndarray]:
    """Which users and items stay, as two arrays of truth values. A minimum of 0 or 1 keeps those without any event too.

    Round by round, items first: `pairs` is read once to count, then once for every set that was dropped, to take its events
    off the counts of the other side. Memory: the counts, and truth values for one part.
    """
    user_U, item_I = (np.zeros(size, np.int64) for size in (num_users, num_items))
    for users, items in pairs():
        _add(user_U, users, 1)
        _add(item_I, items, 1)
    keep_U, keep_I = np.ones(num_users, bool), np.ones(num_items, bool)
    while True:
        gone_I = _too_few(item_I, keep_I, filters.min_item_events)
        if gone_I.any():
            _take_off(user_U, (users[gone_I[items]] for users, items in pairs()))
        keep_I &= ~gone_I
        gone_U = _too_few(user_U, keep_U, filters.min_user_events)
        if filters.iterate and gone_U.any():
            _take_off(item_I, (items[gone_U[users]] for users, items in pairs()))
        keep_U &= ~gone_U
        if not filters.iterate or not gone_U.any():
            return keep_U, keep_I


def check_dropped(filters: Filters, *, rows: int, kept: int) -> None:
    """Raise InputError where minimum counts leave nothing, or drop more of the rows than `max_drop_share`."""
    dropped = 1 - kept / max(1, rows)
    if not kept or dropped > filters.max_drop_share:
        mend = f"lower them, or raise filters.max_drop_share above {dropped:.2f}" if kept else "lower them"
        raise InputError(
            f"filters.min_user_events {filters.min_user_events} and min_item_events {filters.min_item_events} drop "
            f"{dropped:.0%} of the rows: {mend}"
        )


def check_timeline_left(path: object, timeline_events: int) -> None:
    """Raise InputError where only rows outside every timeline are left."""
    if not timeline_events:
        raise InputError(f"{path}: filters.min_user_events and min_item_events leave no timeline event: lower them")


def _too_few(count: np.ndarray, keep: np.ndarray, minimum: int) -> np.ndarray:
    return keep & (count < minimum) if minimum > 1 else np.zeros(len(count), bool)


def _take_off(count: np.ndarray, parts: Iterator[np.ndarray]) -> None:
    for codes in parts:
        _add(count, codes, -1)


def _add(count: np.ndarray, codes: np.ndarray, sign: int) -> None:
    if len(codes) > len(count):
        count += sign * np.bincount(codes, minlength=len(count))
    else:  # without an array of all codes for a part that holds few of them
        np.add.at(count, codes, sign)
