"""How the simulated log lies on disk: tables, and a folder for each day with part files, read in order of their names."""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl

from recsys.simulate.days import Visits, first_moment
from recsys.simulate.settings import Simulation
from recsys.simulate.tables import ids, item_table, user_table
from recsys.simulate.world import World


@dataclass(frozen=True)
class Files:
    """Of one world."""

    spec: Simulation
    world: World

    @cached_property
    def user_id(self) -> pl.Series:
        return ids("u", self.spec.users)

    @cached_property
    def item_id(self) -> pl.Series:
        return ids("i", self.spec.items)

    def write_tables(self, folder: Path) -> None:
        """What the service knows of its users and items."""
        write(item_table(self.spec, self.world, self.item_id, first_moment(self.spec)), folder / "items.parquet")
        write(user_table(self.spec, self.world, self.user_id), folder / "users.parquet")

    def date(self, day: int) -> date:
        return self.spec.start_date + timedelta(days=day)

    def part(self, each: Visits) -> str:
        """Below the folder of the log."""
        return f"events/day={self.date(each.day)}/part-{each.chunk:0{len(str(each.chunks - 1))}d}.parquet"

    def named(self, events: pl.DataFrame, each: Visits) -> pl.DataFrame:
        """Rows of a part of a day with the ids and moments of the log, in place of numbers."""
        return events.select(
            self.user_id.gather(events["user"]).alias("user_id"),
            self.item_id.gather(events["item"]).alias("item_id"),
            pl.col("time_ms") + each.start_ms,
            pl.col("request_id") + each.page,
            pl.exclude("user", "item", "time_ms", "request_id"),
        )


def write(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path, compression="zstd", compression_level=1)
