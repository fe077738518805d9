"""From a config and a dataset to the techniques that weigh examples and choose negatives; what the data must have for them."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from recsys.columns import FIRST_ID, TRAIN, label
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.denoise import Denoiser
from recsys.errors import InputError
from recsys.jagged import Jagged
from recsys.models.item_codes import ItemCodes
from recsys.models.ranker import feature_order
from recsys.sample import exposure
from recsys.sample.hard import Hard
from recsys.train.debiasing import Debiasing
from recsys.train.weights import Trust


def denoisers(spec: Denoiser | None, tasks: int, seed: int) -> tuple[Trust, ...]:
    """One for each task, since those that learn do so from the losses of one."""
    if spec is None:
        return ()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tuple(spec.build() for _ in range(tasks))


def hard_negatives(config: RunConfig, data: Dataset) -> Hard | None:
    """Which negatives each row is compared with, and the model behind it where the kind has one."""
    part = config.retriever
    if part.hard is None:
        return None
    if part.hard.reach >= data.num_items - FIRST_ID:
        raise InputError(
            f"retriever.hard {part.hard.kind} chooses among the best {part.hard.reach} of each row, and {data.folder} has only "
            f"{data.num_items - FIRST_ID} items: lower its settings"
        )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return part.hard.build(part.encoder.dim, torch.from_numpy(exposure(data)))


def debiasing(config: RunConfig, data: Dataset, device: torch.device) -> tuple[Debiasing | None, np.ndarray | None]:
    """The ranker's debiaser, and the propensity of every training example where it reads them."""
    spec, row_X = config.ranker.debias, data.example_rows(TRAIN)
    if spec is None or not len(row_X):  # without examples the split is to blame, which is said later
        return None, None
    if spec.arm is not None:
        require_two_classes(data, spec.arm, row_X)
    propensity_X, scale, floor = None, 1.0, 0.0
    if spec.source is not None:
        task = next(iter(config.tasks))
        if task not in config.regression:
            require_two_classes(data, task, row_X)
        raw_X = spec.source.fit(data, row_X, task)
        floor = spec.floor(raw_X)
        propensity_X = np.maximum(raw_X, floor)
        scale = spec.scale(propensity_X)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        module = spec.build(len(feature_order(data.features)) * config.ranker.dim, len(config.tasks)).to(device)
    if not spec.reads_pairs:
        return Debiasing(module, f"debias {spec.kind}", scale, floor), propensity_X
    codes = ItemCodes.make(data.train_count_I, _item_features(data, spec.kind), device)
    return Debiasing(module, f"debias {spec.kind}", scale, floor, spec.pairs_per_row, codes), propensity_X


def _item_features(data: Dataset, kind: str) -> dict[str, Jagged]:
    names = [f["name"] for f in data.features if f["owner"] == "item"]
    for name in names:
        if name in data.asof:
            raise InputError(
                f"ranker.debias {kind} draws items at random, and what {name!r} was for them then is not kept: take event_time "
                "out of data.items, or choose kind ips or snips"
            )
    return {name: data.codes(name, "item") for name in names}


def helpers(parts: Iterable[object]) -> nn.ModuleList:
    """Those that have parameters or state."""
    return nn.ModuleList(part for part in parts if isinstance(part, nn.Module))


def require_two_classes(data: Dataset, task: str, row_X: np.ndarray) -> None:
    if task not in data.tasks:
        raise InputError(f"{data.folder} has no task {task!r}: choose one of {data.tasks}")
    value_X = data.examples[label(task)][row_X]
    classes = np.unique(value_X[~np.isnan(value_X)])
    if len(classes) < 2:
        found = f"only the value {classes[0]:g}" if len(classes) else "no value"
        raise InputError(
            f"task {task!r} has {found} in the training split, so there is nothing to learn: "
            "take it out of the labels, or change data.split"
        )
