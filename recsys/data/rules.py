"""What a row must hold to be an event, and which rows repeat another. Bad rows are set aside, never dropped silently."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Literal

import polars as pl

from recsys.columns import (
    ARRIVAL,
    IN_HISTORY,
    ITEM,
    ITEM_ID,
    PROPENSITY,
    ROW,
    SLOT,
    TIME_MS,
    USER,
    USER_ID,
    WEIGHT,
    context,
    label,
)
from recsys.data.text import UNREADABLE

if TYPE_CHECKING:
    import dataframely as dy

RULE = "rule"  # short name of the first rule that a row breaks
REASON = "reason"  # the same as a sentence for people
CONFLICT = "conflict"
KEY = "_key"  # one number per (user, time, item)

DAY_MS = 86_400_000
YEAR_1971_MS = 31_536_000_000  # seconds read as milliseconds all fall into January or February 1970
YEAR_2100_MS = 4_102_444_800_000
WRONG_UNIT = "time is before 1971 or after 2100: is time_unit right?"
EXACT_DUPLICATE = "exact_duplicate"
CONFLICTING_DUPLICATE = "conflicting_duplicate"
TOO_LATE = "too_late"

# Rule -> reason, in the order in which a row is judged: the first one that it breaks is named. `{column}` is the column.
REASONS = {
    "unreadable": "",  # the row itself says why
    "user_id_empty": "user id is empty",
    "item_id_empty": "item id is empty",
    "user_id_not_utf8": "user id is not UTF-8: is encoding right?",
    "item_id_not_utf8": "item id is not UTF-8: is encoding right?",
    "time_unreadable": "time is empty or unreadable",
    "time_before_1971": WRONG_UNIT,
    "time_after_2100": WRONG_UNIT,
    "time_in_future": "time is more than a day after this run: is time_unit or the clock right?",
    "propensity_outside_0_1": "propensity is outside [0, 1]",
    "weight_negative": "weight is negative or not a finite number",
    "label_not_binary": "{column} is not 0, 1 or null",
    "value_infinite": "{column} is infinite",
    TOO_LATE: "older than what arrived before by more than events.max_lateness",
    EXACT_DUPLICATE: "exact duplicate of an earlier row",
    CONFLICTING_DUPLICATE: "same user, item and time as another row, with other values",
}

Conflicts = Literal["keep", "first", "last", "quarantine"]
Check = Callable[[pl.Expr], pl.Expr]
Broken = tuple[str, str]  # a rule and the sentence about it


def event_schema(
    labels: Sequence[str],
    contexts: Sequence[str],
    values: Sequence[str],
    has_time: bool,
    now_ms: int | None = None,
    judge_ids: bool = True,
) -> "type[dy.Schema]":
    """The schema of canonical rows for these tasks, context features and raw numbers; its checks are named as in `REASONS`."""
    import dataframely as dy  # with SQLAlchemy it takes an eighth of a second, which here passes while the first rows are read

    number = partial(dy.Float32, allow_nan=True, allow_inf=True)
    columns: dict[str, dy.Column] = {
        UNREADABLE: dy.String(nullable=True, check={"unreadable": pl.Expr.is_null}),
        ROW: dy.Int64(),
        USER_ID: dy.String(nullable=True, check=_id_checks(USER_ID) if judge_ids else None),
        ITEM_ID: dy.String(nullable=True, check=_id_checks(ITEM_ID) if judge_ids else None),
        TIME_MS: dy.Int64(nullable=True, check=_time_checks(has_time, now_ms)),
        IN_HISTORY: dy.Bool(),
        SLOT: dy.Int32(),
        PROPENSITY: number(check={"propensity_outside_0_1": lambda value: value.is_nan() | value.is_between(0, 1)}),
        WEIGHT: number(check={"weight_negative": lambda value: (value >= 0) & value.is_finite()}),
        **{label(task): number(check={"label_not_binary": _is_label}) for task in labels},
        **{context(name): dy.String(nullable=True) for name in contexts},
        **{f"value_{name}": number(check={"value_infinite": lambda value: ~value.is_infinite()}) for name in values},
    }
    return type("Events", (dy.Schema,), columns)


_event_schema = cache(event_schema)  # making one takes as long as judging a small chunk


def split_bad(
    chunk: pl.DataFrame,
    *,
    labels: Sequence[str] = (),
    contexts: Sequence[str] = (),
    values: Sequence[str] = (),
    has_time: bool,
    now_ms: int | None = None,
    judge_ids: bool = True,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Good rows, and bad rows with `rule` and `reason`; both in their order, without `UNREADABLE`.

    With `judge_ids` false the caller knows that ids are there and intact, which is cheaper to find out once for each id.

    A chunk that lacks a column, has one of another type or a null among its numbers is a mistake of the code that made it,
    which raises.
    """
    schema = _event_schema(tuple(labels), tuple(contexts), tuple(values), has_time, now_ms, judge_ids)
    good, failure = schema.filter(chunk)
    judged = failure.details()
    broken = {name: pl.col(name) == "invalid" for name in judged.columns if "|" in name}  # named COLUMN|check__RULE
    found = [
        (pl.when(broken[name]).then(pl.lit(rule)), pl.when(broken[name]).then(_reason(rule, name.split("|")[0])))
        for rule in REASONS
        for name in broken
        if name.endswith(f"|check__{rule}")
    ]
    bad = judged.with_columns(
        pl.coalesce([rule for rule, _ in found]).alias(RULE), pl.coalesce([reason for _, reason in found]).alias(REASON)
    )
    assert bad[RULE].null_count() == 0, f"null among the numbers of a chunk: {failure.counts()}"
    return good.drop(UNREADABLE), bad.drop(UNREADABLE, *broken).select(*good.drop(UNREADABLE).columns, RULE, REASON)


def duplicates(rows: pl.LazyFrame, *, conflicts: Conflicts = "keep") -> pl.LazyFrame:
    """Add `rule`, null for rows that stay, and `conflict` to the rows of a shard, which are sorted by user, time and row.

    A row equal to an earlier one in every column but its place is an exact duplicate; NaN equals NaN. The rows that are left
    conflict where they share user, item and time; `conflicts` says which of them go: none, all but the first or the last,
    or all.
    """
    names = rows.collect_schema().names()
    content = [name for name in names if name not in (ROW, ARRIVAL)]
    moment = pl.struct(USER, TIME_MS).rle_id().cast(pl.Int64)  # rows of one user and time are neighbours
    keyed = rows.with_columns((moment * 2**32 + pl.col(ITEM)).alias(KEY))
    sorted_keys = keyed.select(pl.col(KEY).sort())  # much faster than a hash table, since they almost are
    repeated = sorted_keys.filter(pl.col(KEY) == pl.col(KEY).shift(1))
    alike = keyed.join(repeated, on=KEY, how="semi").sort(ROW)
    versions = alike.filter(pl.struct(content).is_first_distinct())
    in_conflict = versions.filter(pl.col(KEY).is_duplicated())
    marked = pl.concat([
        alike.join(versions, on=ROW, how="anti").select(
            ROW, pl.lit(EXACT_DUPLICATE).alias(RULE), pl.lit(False).alias(CONFLICT)),
        in_conflict.select(
            ROW, pl.when(_goes(conflicts)).then(pl.lit(CONFLICTING_DUPLICATE)).alias(RULE), pl.lit(True).alias(CONFLICT)
        ),
    ])  # fmt: skip
    return rows.join(marked, on=ROW, how="left", maintain_order="left").with_columns(pl.col(CONFLICT).fill_null(False))


def _goes(conflicts: Conflicts) -> pl.Expr:
    stays = {
        "keep": pl.lit(True),
        "first": pl.col(KEY).is_first_distinct(),
        "last": pl.col(KEY).is_last_distinct(),
        "quarantine": pl.lit(False),
    }
    return ~stays[conflicts]


def _id_checks(name: str) -> Mapping[str, Check]:
    return {
        f"{name}_empty": pl.Expr.is_not_null,
        # U+FFFD is what a scan of text puts for bytes that are not UTF-8.
        f"{name}_not_utf8": lambda text: ~text.str.contains("\ufffd", literal=True),
    }


def _time_checks(has_time: bool, now_ms: int | None) -> Mapping[str, Check]:
    checks: dict[str, Check] = {"time_unreadable": pl.Expr.is_not_null}
    if has_time:
        checks |= {"time_before_1971": lambda time: time >= YEAR_1971_MS, "time_after_2100": lambda time: time <= YEAR_2100_MS}
        if now_ms is not None:
            checks["time_in_future"] = lambda time: time <= now_ms + DAY_MS
    return checks


def _is_label(value: pl.Expr) -> pl.Expr:
    return value.is_nan() | (value == 0) | (value == 1)


def _reason(rule: str, column: str) -> pl.Expr:
    return pl.col(UNREADABLE) if rule == "unreadable" else pl.lit(REASONS[rule].format(column=column))


def count_broken(bad: pl.DataFrame) -> Counter[Broken]:
    """How many rows broke which rule."""
    return Counter({(rule, reason): count for rule, reason, count in bad.group_by(RULE, REASON).len().iter_rows()})
