"""Examples per second into torch tensors: ExampleLoader beside torch's DataLoader over a Dataset of single rows.

    python -m benchmarks.loader

Each example is a user, an item, a label and the last 50 items before it. Both sides read the same memory-mapped files, shuffle
the same rows and make batches of the same size. Shapes: E = timeline events, U = users, X = examples, L = history.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils import data

from recsys.artefact import write_artefact
from recsys.columns import (
    EXAMPLES,
    FIRST_ID,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    LENGTH,
    POSITION,
    SPLIT,
    START,
    TIME_MS,
    TIMELINE,
    TRAIN,
    TRAIN_COUNT,
    TRAIN_LENGTH,
    USER,
    USER_ID,
    USERS_FILE,
    VALID_LENGTH,
    WEIGHT,
    examples_file,
    label,
    split_file,
    timeline_file,
)
from recsys.data.arrow import write_columns
from recsys.dataset import Dataset
from recsys.loader import ExampleLoader, Prefetched

OUT = Path(__file__).parent / "out" / "loader.json"
HISTORY, TASK = 50, "click"


class Rows(data.Dataset):
    """The usual way: one example at a time, its history padded so that the default collate function can stack it."""

    def __init__(self, dataset: Dataset):
        self.row_X, self.item_E, self.start_U = dataset.example_rows(TRAIN), dataset.item_E, dataset.start_U
        self.user_X, self.item_X, self.position_X, self.label_X = (
            dataset.examples[name] for name in (USER, ITEM, POSITION, label(TASK))
        )

    def __len__(self) -> int:
        return len(self.row_X)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.row_X[index]
        user, position = int(self.user_X[row]), int(self.position_X[row])
        end = self.start_U[user] + position
        length = min(position, HISTORY)
        history_L = np.zeros(HISTORY, np.int64)
        history_L[:length] = self.item_E[end - length : end]
        return {
            "user": user, "item": int(self.item_X[row]), "history": history_L, "length": length, "label": self.label_X[row],
        }  # fmt: skip


def make_dataset(folder: Path, *, users: int, events: int, items: int, rows: int, shortest: int, seed: int) -> Dataset:
    """Random timelines of `events` each, and examples whose positions are between `shortest` and the end."""
    rng = np.random.default_rng(seed)
    length_U = np.array([0] * FIRST_ID + [events] * users)
    user_X = np.sort(rng.integers(FIRST_ID, FIRST_ID + users, rows, dtype=np.int32))
    files: dict[str, dict[str, Any]] = {
        timeline_file("000"): {
            USER: np.repeat(np.arange(len(length_U), dtype=np.int32), length_U),
            ITEM: rng.integers(FIRST_ID, items, users * events, dtype=np.int32),
            TIME_MS: np.arange(users * events),
        },
        examples_file("000"): {
            USER: user_X,
            ITEM: rng.integers(FIRST_ID, items, rows, dtype=np.int32),
            POSITION: rng.integers(shortest, events + 1, rows, dtype=np.int32),
            label(TASK): rng.integers(0, 2, rows).astype(np.float32),
            WEIGHT: np.ones(rows, np.float32),
        },
        split_file("000"): {SPLIT: np.full(rows, TRAIN, np.int8)},
        USERS_FILE: {
            USER_ID: pa.nulls(len(length_U), pa.large_utf8()), START: np.cumsum(length_U) - length_U, LENGTH: length_U,
            TRAIN_LENGTH: length_U, VALID_LENGTH: 0 * length_U,
        },
        ITEMS_FILE: {ITEM_ID: pa.nulls(items, pa.large_utf8()), TRAIN_COUNT: np.zeros(items, np.int64)},
    }  # fmt: skip
    segments = {TIMELINE: ["000"], EXAMPLES: ["000"]}
    with write_artefact(folder, "dataset", segments=segments, tasks=[TASK], dense=[], context=[], features=[]) as (scratch, _):
        for name, columns in files.items():
            write_columns(columns, scratch / name)
    return Dataset(folder)


def rate(batches: Iterator[Any], size: int, limit: int) -> float:
    """Examples per second over whole batches, the first left out: it pays for starting workers."""
    next(batches)
    began, count = time.perf_counter(), 0
    for _ in islice(batches, max(1, limit // size - 1)):
        count += size
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "rows": 2_000_000, "baseline-rows": 200_000, "users": 200_000, "events": 100, "items": 50_000, "shortest": HISTORY,
        "batch": 1024, "passes": 3, "threads": 2, "seed": 0,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(
            Path(folder) / "dataset", users=options.users, events=options.events, items=options.items, rows=options.rows,
            shortest=options.shortest, seed=options.seed,
        )  # fmt: skip
        result = {**vars(options), "history": HISTORY, "torch": torch.__version__, "examples_per_s": measure(dataset, options)}
    ours, theirs = result["examples_per_s"]["ExampleLoader"], result["examples_per_s"]["DataLoader, 2 workers"]
    result["ratio"] = round(ours / theirs, 1)
    for name, value in result["examples_per_s"].items():
        print(f"{name:32} {value:>12,.0f} examples/s {value / theirs:>8.1f}x")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


def measure(dataset: Dataset, options: argparse.Namespace) -> dict[str, float]:
    """Median rate of each way, taken in turns."""

    def ours(**settings: Any) -> ExampleLoader:
        return ExampleLoader(
            dataset, tasks=[TASK], split=TRAIN, max_history=HISTORY, batch_size=options.batch, seed=options.seed, **settings
        )

    def theirs(workers: int) -> Iterable[Any]:
        return data.DataLoader(Rows(dataset), options.batch, shuffle=True, num_workers=workers)

    found: dict[str, list[float]] = {}
    for number in range(options.passes):
        ways = {
            "ExampleLoader": (ours().epoch(number), options.rows),
            "ExampleLoader, prefetched": (Prefetched(ours()).epoch(number), options.rows),
            "ExampleLoader, by length": (ours(bucket_by_length=True).epoch(number), options.rows),
            "DataLoader, 2 workers": (iter(theirs(2)), options.baseline_rows),
            "DataLoader, 0 workers": (iter(theirs(0)), options.baseline_rows),
        }
        for name, (batches, limit) in ways.items():
            found.setdefault(name, []).append(rate(batches, options.batch, limit))
    return {name: round(statistics.median(rates)) for name, rates in found.items()}


if __name__ == "__main__":
    main()
