"""Users of a day that no person can be. Shapes: N = rows of the day, T = moments (different times of a user), G = gaps."""

import polars as pl

from recsys.columns import ITEM, TIME_MS, USER

RATE, REGULAR, MONOTONOUS = "too many moments", "intervals of a machine", "one item only"
SAME_SHARE = 0.9  # of a user's gaps, or of their rows
TOLERANCE = 0.05  # by which gaps may differ from the user's median and still count as the same
MIN_GAPS, MIN_COARSE_GAPS = 20, 100
COARSE = 5  # with a median gap of fewer units of the log's clock, people's gaps are often equal, too
MIN_ROWS = 50  # of a user with one item only


def machines(rows: pl.DataFrame, *, events_per_day: int, clock_ms: int = 1) -> pl.DataFrame:
    """`user` and `rule`, a row for each user that breaks one. `rows` has `user`, `item` and `time_ms` of one day, and
    `clock_ms` is the unit in which the log tells time.

    A user is no person
    - with rows at more than `events_per_day` different moments (the rows of one page share theirs);
    - with at least 20 gaps between moments of which 90 % lie within 5 % of the user's median gap: people's gaps have a long
      tail. Where the gap is fewer than 5 units of the log's clock, it takes 100 gaps;
    - with at least 50 rows of which 90 % are of one item.
    The first rule that a user breaks is named.
    """
    if rows.is_empty():
        return pl.DataFrame(schema={USER: rows.schema.get(USER, pl.UInt64()), "rule": pl.String()})
    moments = rows.select(USER, TIME_MS).unique().sort(USER, TIME_MS)
    rate = moments.group_by(USER).len().filter(pl.col("len") > events_per_day)
    found = [rate.select(USER, rule=pl.lit(RATE)), _regular(moments, clock_ms), _monotonous(rows)]
    return pl.concat(found).unique(USER, keep="first", maintain_order=True)


def clock(rows: pl.DataFrame, time_unit: str) -> int:
    """The unit in ms in which a log tells time: its `time_unit`, or the second or minute to which all its times are rounded.

    A minute only where times are text that can leave the seconds out: machines that all begin on the minute must not make
    the clock look coarse.
    """
    units = (60_000, 1000) if time_unit == "iso" else (1000,)
    return next((unit for unit in units if bool((rows[TIME_MS] % unit == 0).all())), 1)


def _regular(moments: pl.DataFrame, clock_ms: int) -> pl.DataFrame:
    gap = pl.col(TIME_MS).diff().over(USER)
    gaps = moments.lazy().with_columns(gap=gap).drop_nulls("gap").with_columns(median=pl.col("gap").median().over(USER))
    is_same = (pl.col("gap") - pl.col("median")).abs() <= TOLERANCE * pl.col("median")
    by_user = gaps.group_by(USER).agg(number=pl.len(), median=pl.col("median").first(), same=is_same.mean())
    enough = pl.when(pl.col("median") >= COARSE * clock_ms).then(MIN_GAPS).otherwise(MIN_COARSE_GAPS)
    regular = by_user.filter((pl.col("number") >= enough) & (pl.col("same") >= SAME_SHARE))
    return regular.select(USER, rule=pl.lit(REGULAR)).sort(USER).collect()


def _monotonous(rows: pl.DataFrame) -> pl.DataFrame:
    pairs = rows.lazy().group_by(USER, ITEM).len()
    by_user = pairs.group_by(USER).agg(rows=pl.col("len").sum(), most=pl.col("len").max())
    one_item = by_user.filter((pl.col("rows") >= MIN_ROWS) & (pl.col("most") >= SAME_SHARE * pl.col("rows")))
    return one_item.select(USER, rule=pl.lit(MONOTONOUS)).sort(USER).collect()
