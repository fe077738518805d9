"""A depth sweep for people: a table, and what follows from it."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def table(found: Mapping[str, Any]) -> Table:
    k, metric = found["k"], found["metric"]
    shown = Table(
        title=f"{found['config']}: {found['users']:,} users of the {found['split']} split, lists of {k}", title_justify="left"
    )
    columns = ["ranked", metric, "to the best (95 %)", f"HR@{k}", f"ILD@{k}", f"coverage@{k}", "reach", "ms a list"]
    more = [f"{name}, reranked" for name in (metric, f"ILD@{k}", f"coverage@{k}")] if found["rerank"] else []
    for name in (*columns, *more):
        shown.add_column(name, justify="right")
    for row in found["depths"]:
        to_peak, after = row["to_peak"], row.get("reranked", {})
        interval = "best" if row["depth"] == found["peak"] else _interval(to_peak)
        cells = [str(row["depth"]), _number(row, metric), interval]
        cells += [_number(row, name) for name in (f"HR@{k}", f"ILD@{k}", f"coverage@{k}", "reach")]
        cells += [f"{row['ms_per_list']:.2f}"]
        cells += [_number(after, name) for name in (metric, f"ILD@{k}", f"coverage@{k}")] if more else []
        shown.add_row(*cells, style="bold" if row["depth"] == found["smallest"] else "")
    return shown


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What to set, and what to doubt."""
    rows = {row["depth"]: row for row in found["depths"]}
    smallest, peak, metric = found["smallest"], found["peak"], found["metric"]
    said = [f"{metric} is highest " + ("as retrieval orders the items." if peak == 1 else f"with {peak} candidates ranked.")]
    if peak == 1:
        said.append(
            "Ranking makes no list better: look at serving.value and at what the ranker learns; serving.ranked: 1 serves the "
            "order of retrieval meanwhile."
        )
    elif smallest == 1:
        said.append(
            "The order of retrieval alone is not significantly worse: before serving.ranked: 1 spares the ranker's time, look "
            "at serving.value and at what the ranker learns."
        )
    elif smallest == max(rows):
        said.append(
            f"Every smaller depth is significantly worse than {smallest}: more may be better, raise serving.num_candidates."
        )
    else:
        saved_ms = rows[max(rows)]["ms_per_list"] - rows[smallest]["ms_per_list"]
        said.append(
            f"Set serving.ranked: {smallest}, the smallest depth that is not significantly worse; a list takes "
            f"{saved_ms:.2f} ms less than with {max(rows)}."
        )
    if (last := rows[max(rows)]["to_peak"])["high"] < 0:
        said.append(f"Ranking all {max(rows)} is significantly worse than {peak}: {_interval(last)}.")
    if found["rerank"]:
        kinds, after = " and ".join(found["rerank"]), rows[smallest]["reranked"]
        verb = "changes" if len(found["rerank"]) == 1 else "change"
        said.append(f"At {smallest}, {kinds} {verb} {metric} by {_interval(after['to_plain'])}.")
    if found["without_history"]:
        said.append(f"{found['without_history']:,} users without a history are not judged: no graph makes their lists.")
    return said


def _number(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.4f}" if name in row else ""


def _interval(difference: Mapping[str, float]) -> str:
    return f"{difference['mean']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
