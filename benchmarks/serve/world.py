"""The bundle that is served: a simulated log of the size asked for, and a retriever and a ranker trained on it for one epoch.

Time does not depend on what was learned, but the graphs, the tables and the histories are what the project's own commands make.
"""

import shutil
from pathlib import Path

import yaml
from rich.console import Console

from benchmarks.measure import DATA

CONFIG = {
    "extends": str(Path(__file__).parents[2] / "pipelines/configs/demo.yaml"),
    "retriever": {
        "encoder": {"kind": "sasrec", "dim": 64, "blocks": 2, "heads": 2, "dropout": 0.1, "feed_forward": 2},
        "loss": {"kind": "sampled_softmax"},
        "fit": {"epochs": 1, "batch_size": 256},
    },
    "ranker": {"fit": {"epochs": 1}, "features": []},
    "serving": {"num_candidates": 200, "rerank": [{"kind": "mmr"}]},
}


def make_bundle(items: int, users: int = 20_000, folder: Path = DATA) -> Path:
    """The bundle of a catalogue of about so many items (those that the log shows); made once, then found again."""
    from pipelines import stages
    from pipelines.workspace import Workspace
    from recsys.artefact import is_there
    from recsys.config import load
    from recsys.simulate import Simulation, simulate

    root = folder / f"serve-{items}"
    workspace = Workspace(root)
    if is_there(workspace.bundle):
        return workspace.bundle
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "serve.yaml").write_text(yaml.safe_dump({"name": "serve", **CONFIG}))
    config, store = load(root / "serve.yaml"), f"sqlite:///{root}/mlflow.db"
    console = Console(stderr=True)
    simulate(Simulation(users=users, items=round(items * 1.05), events=min(max(200_000, items * 10), 3_000_000)), workspace.raw)
    stages.prepare(config, workspace.raw, workspace, console=console)
    stages.train(config, workspace, only=None, console=console, uri=store)
    stages.export(config, workspace, uri=store)
    return workspace.bundle
