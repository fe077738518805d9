"""Everything in one go: raw logs -> dataset -> models -> metrics -> bundle -> champion -> live endpoint -> recommendations."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from pipelines import stages
from pipelines.adapters import detect
from pipelines.promotion.promote import promote
from pipelines.promotion.record import render
from pipelines.show import show_items, show_metrics
from pipelines.show_data import show_prepared
from pipelines.workspace import Workspace, config_path
from recsys.columns import LENGTH, USER_ID, USERS_FILE
from recsys.config import RunConfig, load

SHOWN_USERS = 2


def demo(console: Console, *, data: Path | None, config: str | None, overrides: list[str], uri: str | None) -> None:
    """Run every stage and end with answers of the live endpoint. Raises InputError."""
    began = time.monotonic()
    path = config_path(config) if config else detect(data) if data else config_path("demo")
    settings = load(path, *overrides)
    workspace = Workspace(Path("runs") / settings.name)
    raw = data or _simulated(console, workspace)

    console.rule(f"[bold]1 prepare[/]  {raw} with config {path.stem}")
    show_prepared(console, workspace.dataset, stages.prepare(settings, raw, workspace, console=console))
    console.rule("[bold]2 train")
    stages.train(settings, workspace, only=None, console=console, uri=uri)
    console.rule("[bold]3 evaluate")
    result = stages.evaluate(settings, workspace, uri=uri)
    show_metrics(console, workspace.metrics, result)
    console.rule("[bold]4 export")
    manifest = stages.export(settings, workspace, uri=uri)
    worst = max(manifest["parity_max_error"].values())
    console.print(f"[bold]bundle[/] in {workspace.bundle}; torch and ONNX differ by at most {worst:.1e}")
    console.rule("[bold]5 promote")
    classes = [task for task in settings.tasks if task not in settings.regression]
    console.print(render(promote(settings.name, settings.promotion, first_k=settings.evaluation.ks[0], tasks=classes, uri=uri)))
    console.rule("[bold]6 serve")
    _ask_live(console, settings, workspace)
    name = path.stem if path.parent == config_path("demo").parent else path
    console.print(
        f"\nDone in {time.monotonic() - began:.0f} s. Keep the endpoint up, with a page at http://127.0.0.1:3000: "
        f"[cyan]recsys serve --config {name}[/]   "
        "Compare runs: [cyan]recsys compare[/]\nSee the experiments: "
        "[cyan].venv/bin/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db[/]   ([cyan]recsys[/] is .venv/bin/recsys)",
        highlight=False,
    )


def _simulated(console: Console, workspace: Workspace) -> Path:
    from recsys.simulate import Simulation, simulate

    console.rule("[bold]0 simulate")
    spec = Simulation()
    simulate(spec, workspace.raw)
    console.print(f"{spec.events:,} impressions of {spec.users:,} users and {spec.items:,} items in {workspace.raw}")
    return workspace.raw


def _ask_live(console: Console, settings: RunConfig, workspace: Workspace) -> None:
    """Lists over HTTP, and what a click on the first item changes at once."""
    from serving.client import Client
    from serving.run import running_service
    from serving.schema import Event

    with running_service(workspace.bundle) as url:
        console.print(f"BentoML answers on {url}")
        client = Client(url)
        for user in _busiest_users(workspace):
            query: dict[str, Any] = {"user_id": user, "k": 5}
            _show_command(console, "recommend", url, query)
            found = client.recommend(**query)
            show_items(console, found.model_dump())
        if found.items:
            event: dict[str, Any] = {"user_id": user, "item_id": found.items[0].item_id, "event": "click"}
            _show_command(console, "events", url, {"events": [event]})
            client.events(Event(**event))
            console.print("and the same question again:")
            show_items(console, client.recommend(**query).model_dump())


def _show_command(console: Console, route: str, url: str, body: dict[str, Any]) -> None:
    command = f"curl -H 'content-type: application/json' -d '{json.dumps(body)}' {url}/{route}"
    console.print(f"\n[cyan]{command}[/]", highlight=False, soft_wrap=True)


def _busiest_users(workspace: Workspace) -> list[str]:
    users = pa.ipc.open_file(pa.memory_map(str(workspace.bundle / USERS_FILE))).read_all()
    longest = users.select([USER_ID, LENGTH]).sort_by([(LENGTH, "descending")]).slice(0, SHOWN_USERS)
    return [str(user) for user in longest.column(USER_ID).to_pylist()]
