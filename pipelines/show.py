"""Results as tables for people."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recsys.metrics.embedding_health import collapse


def show_metrics(console: Console, folder: Path, result: dict[str, Any]) -> None:
    retrieval = result["retrieval"]
    names = [name for name in retrieval["model"] if name.split("@")[0] in ("NDCG", "HR", "MRR", "Recall", "coverage")]
    table = Table(
        title=f"Retrieval, test split, {retrieval['users']:,} users, whole catalogue; model: the {retrieval['served']}",
        title_justify="left",
    )
    table.add_column("metric")
    systems = {"model": retrieval["model"], **retrieval.get("widths", {}), **retrieval.get("parts", {}), **retrieval["floor"]}
    for system in systems:
        table.add_column(system, justify="right")
    for name in names:
        best = max(means[name] for means in systems.values())
        cells = [f"[bold]{means[name]:.4f}[/]" if means[name] == best else f"{means[name]:.4f}" for means in systems.values()]
        table.add_row(name, *cells)
    console.print(table)
    if "health" in retrieval:
        _show_health(console, retrieval["health"])
    if "ranking" in result:
        table = Table(title=f"Ranking, test split, {result['ranking']['examples']:,} examples", title_justify="left")
        tasks = result["ranking"]["tasks"]
        errors = ("RMSE", "MAE") if any("RMSE" in m for m in tasks.values()) else ()
        for column in ("task", "AUC", "95 % interval", "GAUC", "LogLoss", "ECE", *errors):
            table.add_column(column, justify="left" if column == "task" else "right")
        for task, m in tasks.items():
            shown_names = ("AUC", "AUC_low", "AUC_high", "GAUC", "LogLoss", "ECE", *errors)
            shown = {name: f"{m[name]:.4f}" if name in m else "-" for name in shown_names}
            signal = "" if "RMSE" in m or m.get("AUC_low", 0.0) > 0.5 else " [yellow](no signal)[/]"
            interval = f"{shown.pop('AUC_low')} to {shown.pop('AUC_high')}"
            table.add_row(task + signal, shown.pop("AUC"), interval, *shown.values())
        console.print(table)
    console.print(f"[bold]metrics[/] in {folder} (per_user.parquet keeps every user's values)")


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
    tasks = list(items[0]["tasks"]) if items else []
    for column in ("", "item", "title", "score", *tasks):
        table.add_column(column, justify="left" if column in ("item", "title") else "right")
    for place, item in enumerate(items, 1):
        probabilities = [f"{item['tasks'][task]:.3f}" for task in tasks]
        table.add_row(str(place), item["item_id"], item.get("title") or "", f"{item['score']:.3f}", *probabilities)
    console.print(table)
    if found.get("unknown_items"):
        console.print(f"[yellow]unknown items:[/] {', '.join(found['unknown_items'])}")
