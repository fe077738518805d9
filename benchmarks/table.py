"""A result as a table in Markdown, as docs/results.md holds it, and as one line of JSON."""

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import measure


def publish(name: str, tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]], facts: dict[str, Any]) -> None:
    """Print (title, columns, rows) of each table and then the facts, which also go to benchmarks/out."""
    for title, columns, rows in tables:
        print(f"\n{title}\n\n{markdown(columns, rows)}\n")
    line = json.dumps({"benchmark": name, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **facts})
    measure.OUT.mkdir(parents=True, exist_ok=True)
    (measure.OUT / f"{name}.json").write_text(line + "\n")
    print(line)


def compared(value_SU: np.ndarray, base_SU: np.ndarray) -> dict[str, Any]:
    """The difference of two models, rows of seeds and columns of users: a mean over seeds, a 95 % interval over users drawn
    anew, and whether it is shown, since that leaves out 0 and all seeds agree."""
    from recsys.metrics.significance import paired_bootstrap

    found = paired_bootstrap(value_SU.mean(0), base_SU.mean(0), rng=np.random.default_rng(0))
    of_seed_S = (value_SU - base_SU).mean(1)
    agree = bool((of_seed_S > 0).all() or (of_seed_S < 0).all())
    return {"mean": found.mean, "low": found.low, "high": found.high, "shown": agree and (found.low > 0 or found.high < 0)}


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, all others to the right."""
    widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(w) if place else cell.ljust(w) for place, (cell, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * (w - 1)) + ":" if place else "-" * w for place, w in enumerate(widths)]
    return "\n".join(line(cells) for cells in (columns, rule, *rows))
