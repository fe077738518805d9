"""What a comparison found, as tests ask for it, and users' values for its runs."""

import io

import numpy as np
from planted_runs import hits
from rich.console import Console

from pipelines.comparison.comparison import Comparison, Row
from pipelines.comparison.table import render

USERS = 1000
NDCG = "test/NDCG@10"


def text(found: Comparison, width: int = 200) -> str:
    """The table as a terminal of this width shows it."""
    console = Console(file=io.StringIO(), width=width)
    console.print(render(found, width))
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(found: Comparison, metric: str) -> Row:
    each = found.row(metric)
    assert each is not None
    return each


def best(found: Comparison, metric: str) -> set[str]:
    """The runs that have the star."""
    return {run.name for run, cell in zip(found.runs, row(found, metric).cells, strict=True) if cell.best}


def notes(found: Comparison, name: str) -> str:
    return "; ".join(found.notes[[run.name for run in found.runs].index(name)])


def of_users(share: float, seed: int = 0, users: int = USERS) -> dict[str, np.ndarray]:
    """One value per user: a hit for this share of them."""
    return {"NDCG@10": hits(users, share, seed)}
