"""Results as tables for people."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recsys.metrics.embedding_health import collapse

ACCURACY = ("NDCG", "HR", "MAP", "MRR", "Recall")
BEYOND = {
    "coverage": "coverage {:.1%}", "Gini": "Gini {:.2f}", "novelty": "novelty {:.1f} bits", "ILD": "diversity {:.2f}",
    "serendipity": "serendipity {:.4f}", "popularity_lift": "popularity lift {:+.0%}",
    "category_calibration": "distance from the users' mix of categories {:.2f}",
}  # fmt: skip
OF_TASK = ("AUC", "AUC_low", "AUC_high", "GAUC", "PR-AUC", "LogLoss", "NE", "ECE")


def show_metrics(console: Console, folder: Path, result: dict[str, Any]) -> None:
    """The result of `recsys evaluate`; docs/metrics.md says what each figure means."""
    retrieval = result["retrieval"]
    console.print(_accuracy(retrieval))
    console.print(_beyond(retrieval), highlight=False, soft_wrap=True)
    if "health" in retrieval:
        _show_health(console, retrieval["health"])
    console.print(_slices(retrieval))
    if "ranking" in result:
        console.print(_tasks(result["ranking"]))
    console.print(f"[bold]metrics[/] in {folder} (per_user.parquet keeps every user's values)")


def _accuracy(retrieval: dict[str, Any]) -> Table:
    table = Table(
        title=f"Retrieval, test split, {retrieval['users']:,} users, whole catalogue; model: the {retrieval['served']}",
        title_justify="left",
    )
    table.add_column("metric")
    systems = {"model": retrieval["model"], **retrieval.get("widths", {}), **retrieval.get("parts", {}), **retrieval["floor"]}
    for system in systems:
        table.add_column(system, justify="right")
    for name in retrieval["model"]:
        if name.split("@")[0] in ACCURACY:
            best = max(means[name] for means in systems.values())
            table.add_row(name, *(f"[bold]{m[name]:.4f}[/]" if m[name] == best else f"{m[name]:.4f}" for m in systems.values()))
    return table


def _beyond(retrieval: dict[str, Any]) -> str:
    """What the lists are like, in one line, at the K of their coverage."""
    [k] = {name.split("@")[1] for name in retrieval["model"] if name.startswith("coverage@")}
    found = {name: retrieval["model"].get(f"{name}@{k}") for name in BEYOND}
    return f"beyond accuracy at {k}: " + ", ".join(
        BEYOND[name].format(value) for name, value in found.items() if value is not None
    )


def _slices(retrieval: dict[str, Any]) -> Table:
    """NDCG and HR at the first K of each slice, beside its best floor."""
    names = [next(name for name in retrieval["model"] if name.startswith(f"{metric}@")) for metric in ("NDCG", "HR")]
    table = Table(title="Slices: targets among these items, or these users", title_justify="left")
    for column in ("slice", "users", *names, f"best floor, {names[0]}"):
        table.add_column(column, justify="left" if column == "slice" else "right")
    for slice_, found in retrieval["slices"].items():
        shown = [f"{found['model'][name]:.4f}" if name in found["model"] else "-" for name in names]
        value, floor = max(((means[names[0]], floor) for floor, means in found["floor"].items() if means), default=(None, ""))
        table.add_row(slice_, f"{found['users']:,}", *shown, "-" if value is None else f"{value:.4f} ({floor})")
    return table


def _tasks(ranking: dict[str, Any]) -> Table:
    table = Table(title=f"Ranking, test split, {ranking['examples']:,} examples", title_justify="left")
    tasks = ranking["tasks"]
    errors = ("RMSE", "MAE") if any("RMSE" in m for m in tasks.values()) else ()
    for column in ("task", "AUC", "95 % interval", *OF_TASK[3:], *errors):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, m in tasks.items():
        shown = {name: f"{m[name]:.4f}" if name in m else "-" for name in (*OF_TASK, *errors)}
        signal = "" if "RMSE" in m or m.get("AUC_low", 0.0) > 0.5 else " [yellow](no signal)[/]"
        interval = f"{shown.pop('AUC_low')} to {shown.pop('AUC_high')}"
        table.add_row(task + signal, shown.pop("AUC"), interval, *shown.values())
    return table


def _show_health(console: Console, health: dict[str, float]) -> None:
    effective, share = health["rankme"], health["rankme_share"]
    limit = effective / share if share else float("inf")
    more = ", ".join(
        f"{name} {health[name]:.2f}" for name in ("alignment", "uniformity_users", "uniformity_items") if name in health
    )
    console.print(f"vectors: RankMe {effective:.1f} of {limit:.0f}" + (f", {more}" if more else ""), highlight=False)
    if alarm := collapse(effective, limit, effective):
        console.print(f"[bold yellow]alarm:[/] {alarm}", highlight=False, soft_wrap=True)


def show_items(console: Console, found: dict[str, Any]) -> None:
    items = found["items"]
    table = Table(title=f"{found['model']} {str(found['version'])[:8]}", title_justify="left")
    tasks = list(dict.fromkeys(task for item in items for task in item["tasks"]))
    for column in ("", "item", "title", "score", *tasks):
        table.add_column(column, justify="left" if column in ("item", "title") else "right")
    for place, item in enumerate(items, 1):
        probabilities = [f"{item['tasks'][task]:.3f}" if task in item["tasks"] else "-" for task in tasks]
        table.add_row(str(place), item["item_id"], item.get("title") or "", f"{item['score']:.3f}", *probabilities)
    console.print(table)
    if found.get("fallback"):
        console.print(f"[yellow]filled up from:[/] {found['fallback']}")
    if found.get("flags"):
        console.print(f"[yellow]flags:[/] {', '.join(found['flags'])}")
    if found.get("unknown_items"):
        console.print(f"[yellow]unknown items:[/] {', '.join(found['unknown_items'])}")
