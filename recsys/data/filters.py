"""Minimum counts, iterated to their fixed point (k-core)."""

import polars as pl
from pydantic import Field

from recsys.columns import IN_HISTORY, ITEM_ID, USER_ID
from recsys.errors import InputError
from recsys.spec import Spec


class Filters(Spec):
    min_user_events: int = Field(1, ge=0, description="timeline events a user needs; 0 and 1 keep everyone")
    min_item_events: int = Field(1, ge=0, description="timeline events an item needs; 0 and 1 keep everything")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="stop when more rows than this go to quarantine")
    max_drop_share: float = Field(0.5, ge=0, le=1, description="stop when minimum counts drop more rows than this")

    def __call__(self, events: pl.DataFrame) -> pl.DataFrame:
        """Drop rows of users and items with too few timeline events, until nothing changes. Raises InputError."""
        kept, before = events, -1
        while len(kept) != before:
            before = len(kept)
            for key, minimum in ((USER_ID, self.min_user_events), (ITEM_ID, self.min_item_events)):
                if minimum > 1:
                    kept = kept.filter(pl.col(IN_HISTORY).sum().over(key) >= minimum)
        dropped = 1 - len(kept) / max(1, len(events))
        if kept.is_empty() or dropped > self.max_drop_share:
            mend = "lower them" if kept.is_empty() else f"lower them, or raise filters.max_drop_share above {dropped:.2f}"
            raise InputError(
                f"filters.min_user_events {self.min_user_events} and min_item_events {self.min_item_events} drop {dropped:.0%} "
                f"of the rows: {mend}"
            )
        return kept
