"""The files of a bundle that are no graphs, and what its manifest says about the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.behaviours import behaviours, tasks_shown
from recsys.columns import BEHAVIOUR, ITEM, ITEM_ID, ITEMS_FILE, TIME_MS, TIMELINE_FILE, USER_ID, USERS_FILE
from recsys.config import RunConfig
from recsys.data.arrow import write_columns
from recsys.dataset import Dataset, map_file, numbers
from recsys.export.features import export_features
from recsys.export.parity import Parity
from recsys.export.stand_ins import by_segment, covisits, popular, training_events
from recsys.id_index import write_id_index
from serving.bundle.bundle import ITEM_INDEX_FILE, PARITY_FILE, REFERENCE_FILE, USER_INDEX_FILE
from serving.bundle.facts import Reference
from serving.bundle.stand_ins import COVISITS_FILE, POPULAR_FILE, SEGMENTS_FILE


def write_tables(config: RunConfig, data: Dataset, folder: Path) -> None:
    """Users, items, the timeline of both together, and where in them an external id stands."""
    for name, column, index in ((USERS_FILE, USER_ID, USER_INDEX_FILE), (ITEMS_FILE, ITEM_ID, ITEM_INDEX_FILE)):
        shutil.copyfile(data.folder / name, folder / name)
        write_id_index(map_file(folder / name)[column], folder / index)
    masks = {BEHAVIOUR: behaviours(data, list(config.tasks))} if config.ranker.sharing.reads_behaviours else {}
    write_columns({ITEM: data.item_E, TIME_MS: data.time_ms_E, **masks}, folder / TIMELINE_FILE)


def write_stand_ins(config: RunConfig, data: Dataset, folder: Path) -> None:
    training = training_events(data)
    np.save(folder / POPULAR_FILE, popular(data.train_count_I))
    if config.segment is not None:
        np.save(folder / SEGMENTS_FILE, by_segment(training, data.codes(config.segment, "user"), data.num_items))
    near, score_N = covisits(training, data.num_items)
    lists = {"item": near.item_E, "score": score_N}
    write_columns(
        {name: pa.LargeListArray.from_arrays(pa.array(near.offset_U1), pa.array(each)) for name, each in lists.items()},
        folder / COVISITS_FILE,
    )


def write_parity(checked: list[Parity], folder: Path) -> None:
    """Inputs with their outputs: what a server checks its runtime against before it answers."""
    arrays: dict[str, Any] = {name: value for parity in checked for name, value in parity.sample.items()}
    np.savez(folder / PARITY_FILE, **arrays)


def write_reference(reference: Reference, folder: Path) -> None:
    (folder / REFERENCE_FILE).write_text(json.dumps(reference.model_dump(), indent=1) + "\n")


def model_facts(
    config: RunConfig, data: Dataset, folder: Path, *, candidates: str, index: dict[str, Any] | None
) -> dict[str, Any]:
    """The manifest's `model`, which serving.bundle.facts reads; what features go on from is written into `folder`."""
    timeline = map_file(folder / TIMELINE_FILE)
    return {
        "max_history": config.max_history,
        "candidates": candidates,
        "num_candidates": min(config.serving.num_candidates, data.num_items - 2),
        "num_items": data.num_items,
        "tasks": list(config.tasks),
        "value": config.value,
        "context": {name: data.vocabulary("context", name) for name in data.context} if config.tasks else {},
        "serving": config.serving.model_dump(mode="json"),
        "category": {config.category: data.vocabulary("item", config.category)} if config.category else {},
        "segment": config.segment,
        "segment_values": data.vocabulary("user", config.segment) if config.segment else [],
        "features": export_features(data, config.ranker_features, folder) if config.tasks else {},
        "tasks_in_history": tasks_shown(numbers(timeline, BEHAVIOUR), list(config.tasks))
        if BEHAVIOUR in timeline.column_names
        else [],
        "index": index,
    }
