"""The values of every user that an evaluation leaves beside its means, and their reader."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

FOLDER = "metrics"  # among the artefacts of a run
METRICS_FILE, PER_USER_FILE, PER_USER_RANKING_FILE = "metrics.json", "per_user.parquet", "per_user_ranking.parquet"
MODEL = "model"  # the column that says whose list was judged: the served model's, or a floor's
SERVED = "model"


def served(folder: Path, metrics: Sequence[str] | None = None) -> pl.DataFrame:
    """`user`, ascending, and of `metrics` those that are there (all, without any), of the served model.

    Raises polars' error or OSError where the file is absent or cannot be read.
    """
    file = folder / PER_USER_FILE
    columns = list(pl.read_parquet_schema(file))
    names = [name for name in (columns if metrics is None else metrics) if name in columns and name not in ("user", MODEL)]
    table = pl.read_parquet(file, columns=["user", *([MODEL] if MODEL in columns else []), *names])
    if MODEL in columns:
        table = table.filter(pl.col(MODEL) == SERVED).drop(MODEL)
    return table if table["user"].is_sorted() else table.sort("user")
