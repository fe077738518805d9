"""Minimum counts, iterated to their fixed point (k-core)."""

import polars as pl
from pydantic import Field

from recsys.columns import IN_HISTORY, ITEM_ID, USER_ID
from recsys.errors import InputError
from recsys.spec import Spec


class Filters(Spec):
    min_user_events: int = Field(1, ge=0, description="timeline events a user needs")
    min_item_events: int = Field(1, ge=0, description="timeline events an item needs")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="stop when more rows than this go to quarantine")
    max_drop_share: float = Field(0.5, ge=0, le=1, description="stop when minimum counts drop more rows than this")

    def __call__(self, events: pl.DataFrame) -> pl.DataFrame:
        """Drop rows of users and items with too few timeline events, until nothing changes. Raises InputError."""
        kept = events
        while True:
            before = len(kept)
            for key, minimum in ((USER_ID, self.min_user_events), (ITEM_ID, self.min_item_events)):
                if minimum > 1:
                    kept = kept.filter(pl.col(IN_HISTORY).sum().over(key) >= minimum)
            if len(kept) == before:
                break
        dropped = 1 - len(kept) / max(1, len(events))
        if dropped > self.max_drop_share:
            raise InputError(
                f"filters.min_user_events {self.min_user_events} and min_item_events {self.min_item_events} drop {dropped:.0%} "
                f"of the rows: lower them, or raise filters.max_drop_share above {dropped:.2f}"
            )
        return kept
