"""A log in order of time with what a model, trained on its first part, says of each later row, for benchmarks.error_memory.

Shapes: X = rows, H = items of a history, D = numbers of a vector, T = tasks, I = rows of the item table.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

KEYS_OF = 50  # newest items of a history that are kept


class Quiet:
    """Reports of the training loop that nobody reads."""

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        pass

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None:
        print(f"  {job} epoch {epoch}: {json.dumps({k: round(v, 4) for k, v in metrics.items()})[:160]}", file=sys.stderr)


def ml_1m(raw: Path, out: Path, users: int) -> Path:
    """The ratings of some users, with all movies."""
    import polars as pl

    out.mkdir(parents=True, exist_ok=True)
    rating = pl.read_parquet(raw / "ratings.parquet")
    chosen = rating["user_id"].unique().sort().sample(users, seed=0)
    rating.filter(pl.col("user_id").is_in(chosen.implode())).write_parquet(out / "ratings.parquet")
    for name in ("users", "movies"):
        pl.read_parquet(raw / f"{name}.parquet").write_parquet(out / f"{name}.parquet")
    return out


def simulated(out: Path, **settings: Any) -> Path:
    from recsys.simulate import Simulation, simulate

    if not out.exists():
        simulate(Simulation(**settings), out)
    return out


def make(config: str, raw: str, work: str, overrides: list[str], seed: int) -> str:
    """Prepare, train retriever and ranker on the first part; the file of the later parts' predictions."""
    import torch
    from safetensors.torch import load_file

    from pipelines import stages
    from pipelines.models import ranking_graph, retrieval_graph
    from pipelines.train import train_ranker, train_retriever
    from pipelines.workspace import Workspace, config_path, open_dataset
    from recsys.config import load
    from recsys.train.distributed import process_group
    from recsys.train.loop import MODEL_FILE

    torch.set_num_threads(1)
    out = Path(work) / f"stream-{seed}.npz"
    if out.exists():
        return str(out)
    chosen, workspace = load(config_path(config), *overrides, f"seed={seed}"), Workspace(Path(work))
    stages.prepare(chosen, Path(raw), workspace)
    data = open_dataset(workspace, chosen)
    with process_group() as device:
        parts = {"retriever": train_retriever, "ranker": train_ranker}
        state = {}
        for part, trainer in parts.items():
            folder = Path(work) / f"{part}-{seed}"
            trainer(chosen, data, folder, device=device, progress=Quiet())
            state[part] = load_file(folder / MODEL_FILE)
        vector_ID = retrieval_graph(chosen, data, state["retriever"]).scored_ID.detach().float().numpy()
        columns = _predicted(chosen, data, ranking_graph(chosen, data, state["ranker"]))
    unit_ID = vector_ID / np.maximum(np.linalg.norm(vector_ID, axis=1, keepdims=True), 1e-12)
    np.savez(out, allow_pickle=False, unit_ID=unit_ID, tasks=np.array(list(chosen.tasks)), **columns)
    return str(out)


def _predicted(config: Any, data: Any, graph: Any) -> dict[str, np.ndarray]:
    """Columns of the rows after the training part, in order of time; `test_X`: whether the row is of the last part."""
    from pipelines.train import EVALUATION_BATCH
    from recsys import evaluate
    from recsys.columns import ITEM, POSITION, TEST, TIME_MS, USER, VALID
    from recsys.loader import ExampleLoader

    found: dict[str, list[np.ndarray]] = {}
    for split in (VALID, TEST):
        loader = ExampleLoader(
            data, tasks=list(config.tasks), split=split, max_history=config.ranker_history, batch_size=EVALUATION_BATCH,
            seed=config.seed, behaviours=config.ranker.sharing.reads_behaviours, dense=config.ranker_features,
        )  # fmt: skip
        said, row_X = evaluate.predict(graph, loader), loader.row_X
        user_X, item_X, position_X, time_X = (
            np.asarray(data.examples[name][row_X]).astype(np.int64) for name in (USER, ITEM, POSITION, TIME_MS)
        )
        length_X = np.minimum(position_X, KEYS_OF)
        place_XH = (data.start_U[user_X] + position_X - length_X)[:, None] + np.arange(KEYS_OF)
        there_XH = np.arange(KEYS_OF) < length_X[:, None]
        history_XH = np.where(there_XH, data.item_E[np.where(there_XH, place_XH, 0)], 0)
        columns = {
            "user_X": user_X, "item_X": item_X, "time_X": time_X, "history_XH": history_XH, "length_X": length_X,
            "probability_XT": said.probability_XT, "label_XT": said.label_XT, "test_X": np.full(len(user_X), split == TEST),
        }  # fmt: skip
        for name, values in columns.items():
            found.setdefault(name, []).append(values)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    order_X = np.argsort(joined["time_X"], kind="stable")
    return {name: values[order_X] for name, values in joined.items()}
