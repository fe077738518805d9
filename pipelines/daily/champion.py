"""The champion on the day's own data: its parameters in the day's vocabulary, judged as the candidate is.

Without it the two could not be compared: they were judged on datasets of different days, so on other users and events.
"""

import shutil
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines import models
from pipelines.daily.layout import Layout
from pipelines.daily.registered import is_run_of
from pipelines.daily.training import not_whole
from pipelines.evaluate import HeldOut, evaluate_run
from pipelines.parents import made_from
from pipelines.per_user import METRICS_FILE, PER_USER_FILE
from pipelines.promotion.facts import CHAMPION, on_other_data
from pipelines.semantic_ids import build_ids, semantic_ids, take_ids
from pipelines.workspace import Workspace, check_past, identity, open_dataset, parts, read_state
from recsys import track
from recsys.artefact import is_there, read_manifest, write_artefact
from recsys.columns import UNKNOWN_ID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place, process_group
from recsys.train.grow import grow
from recsys.train.loop import MODEL_FILE

LATER = "later/"  # metrics of a champion on the data of later days, by the day's ordinal number as step


def judge_champion(
    config: RunConfig, layout: Layout, today: Workspace, into: Workspace, *, step: int, uri: str | None,
    held_out: HeldOut | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate the champion on today's dataset and store what it reaches with its run; returns what the day keeps of it.

    `into` takes the grown checkpoints and the metrics. `step` numbers the day. `held_out`: of today. Where it cannot be judged,
    the result says why.
    """
    version = track.get_alias(config.name, CHAMPION, uri=uri)
    if version is None:
        return {"champion": None, "why_not": "there is no champion yet"}
    found: dict[str, Any] = {"champion": version.number}
    home = _workspace_of(layout, version.run_id, uri)
    if home is None:
        return found | {"why_not": f"no day has the checkpoints of version {version.number}, run {version.run_id}, any more"}
    data = open_dataset(today, config)
    if home.root == today.root:
        return found | {"why_not": "it is this day's own"}
    try:
        _grow_all(config, data, home, into)
    except InputError as error:
        shutil.rmtree(into.root, ignore_errors=True)  # what an earlier try left, which nobody goes on with
        return found | {"why_not": str(error)}
    result = evaluate_run(config, data, into, held_out=held_out)
    folder = on_other_data(data.manifest["data_fingerprint"])
    with track.resume_run(version.run_id, uri=uri) as run:
        for name in (METRICS_FILE, PER_USER_FILE):
            run.artefact(into.metrics / name, folder)
        first = {name: value for name, value in result["retrieval"]["model"].items() if name.split("@")[0] in ("HR", "NDCG")}
        run.metrics({LATER + name: value for name, value in first.items()}, step=step)
    return found | {"day": home.root.name, "metrics": result["retrieval"]["model"]}


def _workspace_of(layout: Layout, run_id: str, uri: str | None) -> Workspace | None:
    """The workspace of the day that trained a run."""
    return next((workspace for workspace in layout.workspaces() if is_run_of(workspace, run_id, uri)), None)


def _grow_all(config: RunConfig, data: Dataset, home: Workspace, into: Workspace) -> None:
    """Checkpoints of every part of `home` as models of this dataset. Raises InputError where they cannot become that."""
    # damaged parameters would be judged as its own
    if problem := not_whole(config, home, dataset_too=is_there(home.dataset)):
        raise InputError(f"{problem}, so that it cannot be judged")
    check_past(home, data)
    if config.generator is not None:
        take_ids(home, into)
        build_ids(config, data, into)
    with process_group() as device:
        for part in parts(config):
            start = read_state(home, part, config)
            torch.manual_seed(config.seed)
            fresh = model_state(place(_model(config, data, into, part), device))
            state = as_unknown(start.state, grow(start.state, fresh))
            wanted = identity(config, data, part, **made_from(config, part, into))
            if _is_written(into, part, wanted, start.checkpoint):
                continue
            with write_artefact(
                into.checkpoint(part), "checkpoint", identity={**wanted, "grown_from": start.checkpoint}, best=None,
                main_metric=read_manifest(home.checkpoint(part), "checkpoint")["main_metric"],
            ) as (folder, _):  # fmt: skip
                save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / MODEL_FILE)


def as_unknown(old: Mapping[str, Tensor], grown: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the row of unknown ids in the place of each row that was added: a server of the old model takes every id that it
    does not know for that one."""
    found = dict(grown)
    for name, tensor in old.items():
        if grown[name].shape != tensor.shape and grown[name].shape[1:] == tensor.shape[1:]:
            found[name] = grown[name].clone()
            found[name][len(tensor) :] = tensor[UNKNOWN_ID]
    return found


def _is_written(into: Workspace, part: str, wanted: Mapping[str, Any], checkpoint: str) -> bool:
    try:
        written = read_manifest(into.checkpoint(part), "checkpoint", verify=True)
    except InputError:  # there is none yet, or it is damaged
        return False
    return bool(written["identity"] == {**wanted, "grown_from": checkpoint})


def _model(config: RunConfig, data: Dataset, workspace: Workspace, part: str) -> nn.Module:
    kind = config.policy.parent if part == "policy" and config.policy is not None else part
    if kind == "generator":
        return models.generator(config, data, semantic_ids(config, data, workspace))
    return models.retriever(config, data) if kind == "retriever" else models.ranker(config, data)
