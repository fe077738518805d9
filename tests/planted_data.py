"""Planted data: blocks of users and items whose answer is known, written in the format of a dataset artefact."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.artefact import fingerprint, write_artefact
from recsys.columns import (
    CONTEXT_PREFIX,
    EXAMPLES,
    FEATURE_PREFIX,
    FIRST_ID,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    LABEL_PREFIX,
    LENGTH,
    POSITION,
    SPLIT,
    START,
    TEST,
    TIME_MS,
    TIMELINE,
    TRAIN,
    TRAIN_COUNT,
    TRAIN_LENGTH,
    USER,
    USER_ID,
    USERS_FILE,
    VALID,
    VALID_LENGTH,
    WEIGHT,
    examples_file,
    label,
    split_file,
    timeline_file,
)  # fmt: skip
from recsys.config import RunConfig
from recsys.dataset import Dataset

BLOCKS, BLOCK_ITEMS = 4, 12  # the planted catalogue
NUM_ITEMS = BLOCKS * BLOCK_ITEMS + FIRST_ID

Feature = tuple[str, list[Any]]  # owner and the codes (or lists of codes) of every row, the two reserved ones included


def leave_one_out(length: int) -> list[int]:
    """The split of each event of a timeline of this length."""
    return [TRAIN] * length if length < 3 else [TRAIN] * (length - 2) + [VALID, TEST]


def write_dataset(
    folder: Path, timelines: Sequence[Sequence[int]], *, num_items: int = NUM_ITEMS,
    splits: Sequence[Sequence[int]] | None = None, examples: pl.DataFrame | None = None,
    features: Mapping[str, Feature] | None = None, context_sizes: Mapping[str, int] | None = None, segments: int = 1,
) -> Dataset:  # fmt: skip
    """A dataset whose user u, from FIRST_ID on, has timeline u; its rows 0 and 1 are empty.

    Each timeline and the rows of the examples are cut into `segments` files.
    """
    features, context_sizes = features or {}, context_sizes or {}
    splits = splits if splits is not None else [leave_one_out(len(timeline)) for timeline in timelines]
    counted = {LENGTH: (TRAIN, VALID, TEST), TRAIN_LENGTH: (TRAIN,), VALID_LENGTH: (VALID,)}
    lengths = {name: [0] * FIRST_ID + [sum(split in of for split in row) for row in splits] for name, of in counted.items()}
    train = [item for timeline, row in zip(timelines, splits, strict=True) for item in timeline[: row.count(TRAIN)]]
    columns = {
        owner: {f"feature_{name}": codes for name, (of, codes) in features.items() if of == owner} for owner in ("user", "item")
    }
    start = np.cumsum(lengths[LENGTH]) - lengths[LENGTH]
    frames = {
        USERS_FILE: pl.DataFrame({USER_ID: _names("u", len(start)), **columns["user"], START: start, **lengths}),
        ITEMS_FILE: pl.DataFrame(
            {ITEM_ID: _names("i", num_items), **columns["item"], TRAIN_COUNT: np.bincount(train, minlength=num_items)}
        ),
    }
    names = [f"{number:03d}" for number in range(segments)]
    for number, name in enumerate(names):
        frames[timeline_file(name)] = _timeline_segment(timelines, number, segments)
        if examples is not None:
            part = examples[len(examples) * number // segments : len(examples) * (number + 1) // segments]
            frames[examples_file(name)] = part.drop(SPLIT).with_columns(pl.lit(1.0, pl.Float32).alias(WEIGHT))
            frames[split_file(name)] = part.select(SPLIT)
    known = {name: (owner, np.concatenate([np.ravel(code) for code in codes])) for name, (owner, codes) in features.items()}
    described = [
        {"name": name, "owner": owner, "size": int(codes.max()) + 1, "multi_valued": isinstance(features[name][1][0], list)}
        for name, (owner, codes) in known.items()
    ] + [{"name": name, "owner": "context", "size": size, "multi_valued": False} for name, size in context_sizes.items()]
    example_columns = [] if examples is None else examples.columns
    with write_artefact(
        folder, "dataset",
        segments={TIMELINE: names, EXAMPLES: [] if examples is None else names},
        tasks=[name.removeprefix(LABEL_PREFIX) for name in example_columns if name.startswith(LABEL_PREFIX)],
        dense=[name.removeprefix(FEATURE_PREFIX) for name in example_columns if name.startswith(FEATURE_PREFIX)],
        context=list(context_sizes), features=described, config={}, has_time=True,
        data_fingerprint=fingerprint([[list(timeline) for timeline in timelines], described]),
    ) as (scratch, _):  # fmt: skip
        for name, frame in frames.items():
            (scratch / name).parent.mkdir(exist_ok=True)
            frame.rechunk().write_ipc(scratch / name, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return Dataset(folder)


def _timeline_segment(timelines: Sequence[Sequence[int]], number: int, segments: int) -> pl.DataFrame:
    """Of every timeline the part that lies in this one of `segments` files; a time is the place in the whole timeline."""
    rows = [
        (user, item, place)
        for user, timeline in enumerate(timelines, FIRST_ID)
        for place, item in enumerate(timeline)
        if place * segments // len(timeline) == number
    ]
    return pl.DataFrame(rows, {USER: pl.Int32, ITEM: pl.Int32, TIME_MS: pl.Int64}, orient="row")


def planted_timelines(users: int, rng: np.random.Generator) -> list[list[int]]:
    """A user belongs to a block and walks through its items, i to i + 1 and round, so the next item is certain."""
    timelines = []
    for user in range(users):
        first, length = rng.integers(BLOCK_ITEMS), rng.integers(4, 10)
        block = FIRST_ID + (user % BLOCKS) * BLOCK_ITEMS
        timelines.append([int(block + (first + step) % BLOCK_ITEMS) for step in range(length)])
    return timelines


def write_planted(folder: Path, *, users: int = 160) -> Dataset:
    """Walks through blocks; users click what is of their block, one click in twenty flipped, and may like what they click."""
    rng = np.random.default_rng(0)
    timelines = planted_timelines(users, rng)
    rows = []
    for user, timeline in enumerate(timelines):
        splits = leave_one_out(len(timeline))
        for position, item in enumerate(timeline):
            other = int(rng.integers(FIRST_ID, NUM_ITEMS))
            for shown in (item, other):
                ours = (shown - FIRST_ID) // BLOCK_ITEMS == user % BLOCKS
                click = float(ours != (rng.random() < 0.05))
                like = float(rng.random() < 0.5) if click else float("nan")
                rows.append((user + FIRST_ID, shown, position, splits[position], click, like, int(rng.integers(1, 6))))
    labels = {label("click"): pl.Float32, label("like"): pl.Float32}
    schema = {USER: pl.Int32, ITEM: pl.Int32, POSITION: pl.Int32, SPLIT: pl.Int8, **labels, f"{CONTEXT_PREFIX}hour": pl.Int32}
    examples = pl.DataFrame(rows, orient="row", schema=schema)
    num_users = users + FIRST_ID
    features: dict[str, Feature] = {
        "age": ("user", [1, 1, *rng.integers(FIRST_ID, 7, users).tolist()]),
        "languages": ("user", [[1], [1], *_lists(rng, users, 9)]),
        "genre": ("item", [1, 1, *rng.integers(FIRST_ID, 6, NUM_ITEMS - FIRST_ID).tolist()]),
        "tags": ("item", [[1], [1], *_lists(rng, NUM_ITEMS - FIRST_ID, 12)]),
    }
    assert len(features["age"][1]) == num_users
    return write_dataset(folder, timelines, examples=examples, features=features, context_sizes={"hour": 6})


def _lists(rng: np.random.Generator, count: int, size: int) -> list[list[int]]:
    return [rng.integers(1, size, rng.integers(1, 5)).tolist() for _ in range(count)]


def _names(prefix: str, rows: int) -> list[str | None]:
    return [None] * FIRST_ID + [f"{prefix}{row}" for row in range(FIRST_ID, rows)]


def planted_config(fit: Mapping[str, Any] | None = None, **sections: Any) -> RunConfig:
    """A small config for the planted dataset; `fit` holds for both models."""
    settings = {
        "batch_size": 16,
        "epochs": 8,
        "warmup_steps": 10,
        "embedding_learning_rate": 0.1,
        "learning_rate": 0.005,
        **(fit or {}),
    }
    tree: dict[str, Any] = {
        "name": "planted",
        "max_history": 6,
        "data": {
            "events": {"path": "-", "user": "u", "item": "i", "labels": {"click": "c", "like": "l"}, "context": {"hour": "h"}}
        },
        "retriever": {"encoder": {"kind": "sasrec", "dim": 16, "blocks": 1, "heads": 2, "dropout": 0.1}, "fit": settings},
        "ranker": {"dim": 8, "max_history": 5, "sharing": {"kind": "mmoe", "experts": 2, "hidden": 16}, "fit": settings},
        "evaluation": {"ks": [5, 10]},
        "serving": {"num_candidates": 20},
    }
    return RunConfig.model_validate(tree | sections)
