"""The steps of forgetting that concern the model: made anew or changed, moved to the new dataset, attacked, compared.

Dense ids are those of the old dataset, which has the users, until a checkpoint is written for the new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.forget.carry import carried
from pipelines.forget.measure import LEAST, membership, never_trained, quality
from pipelines.forget.plan import Method
from pipelines.forget.unlearn import dampen, unlearn
from pipelines.workspace import Workspace, identity, parts
from recsys.artefact import is_there, read_manifest, write_artefact
from recsys.columns import TEST, TRAIN, VALID
from recsys.config import RunConfig
from recsys.continual.membership import matched
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.loop import HISTORY_FILE, MODEL_FILE

CONTROLS = 100  # that the attack compares with, where there are as many
MEASURED = ("retriever", "ranker")  # whose losses are events' or examples'
COPIED = ("main_metric", "epochs", "steps", "seconds", "peak_memory_gib", "time_share")  # of a checkpoint's manifest


@dataclass(frozen=True)
class Groups:
    """Dense ids of the old dataset: whom to forget, and of those who were never trained on whom `unlearn` aims at and whom the
    attack compares with: those who have about as many events as the forgotten, as users of few events are harder to predict."""

    forget_F: np.ndarray
    unseen_N: np.ndarray
    other_O: np.ndarray

    @classmethod
    def of(cls, data: Dataset, users: list[str], method: Method, seed: int) -> "Groups":
        place = {user: row for row, user in enumerate(data.user_ids) if user is not None}
        forget_F = np.array(sorted(place[user] for user in users if user in place), np.int64)
        never = np.setdiff1d(never_trained(data), forget_F)
        rng = np.random.default_rng(seed)
        if method != "unlearn":
            return cls(forget_F, never[:0], _as_active(data, forget_F, never, rng))
        shuffled = rng.permutation(never)
        unseen_N, rest = np.sort(shuffled[: len(never) // 2]), np.sort(shuffled[len(never) // 2 :])
        return cls(forget_F, unseen_N, _as_active(data, forget_F, rest, rng))


def _as_active(data: Dataset, forget_F: np.ndarray, other_O: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of the others those nearest in their number of events, at least `CONTROLS` and one for each of the forgotten."""
    counts = data.events(TRAIN)[1][forget_F], (data.events(VALID)[1] + data.events(TEST)[1])[other_O]
    if not len(forget_F):
        return other_O
    return other_O[matched(*counts, each=-(-CONTROLS // len(forget_F)), rng=rng)]


def require_method(config: RunConfig, data: Dataset, method: Method, users: list[str]) -> None:
    """Raise InputError where an approximate method cannot work; retraining always can."""
    if method == "retrain":
        return
    if others := [part for part in parts(config) if part not in MEASURED]:
        raise InputError(f"--method {method} knows no way to change a {others[0]}: use --method retrain")
    if method == "unlearn" and len(Groups.of(data, users, method, config.seed).unseen_N) < LEAST:
        raise InputError(
            f"--method unlearn aims at users who were never trained on, of which {data.folder} has fewer than {2 * LEAST}: use "
            "--method retrain"
        )


def approximate(config: RunConfig, old: Workspace, new: Workspace, users: list[str], method: Method) -> dict[str, Any]:
    """Checkpoints that have forgotten, written for the new dataset; part -> what was done."""
    before, after, found = Dataset(old.dataset), Dataset(new.dataset), {}
    groups = Groups.of(before, users, method, config.seed)
    for part in parts(config):
        if is_there(new.checkpoint(part)):  # of a run that was killed after it
            found[part] = read_manifest(new.checkpoint(part), "checkpoint")["forgot"]
            continue
        state = load_file(old.checkpoint(part) / MODEL_FILE)
        if method == "dampen":
            state, found[part] = dampen(config, before, part, state, groups.forget_F)
        else:
            state, found[part] = unlearn(
                config, before, part, state, groups.forget_F, groups.unseen_N, unseen_splits=(VALID, TEST)
            )  # fmt: skip
        _write(config, part, old, new, after, carried(state, before, after), found[part])
    return found


def measure(config: RunConfig, old: Workspace, new: Workspace, users: list[str], method: Method) -> dict[str, Any]:
    """Part -> the attack before and after, and the quality for the others; None where it cannot be known."""
    before, after, found = Dataset(old.dataset), Dataset(new.dataset), {}
    groups = Groups.of(before, users, method, config.seed)
    for part in (part for part in parts(config) if part in MEASURED):
        was, now = (load_file(workspace.checkpoint(part) / MODEL_FILE) for workspace in (old, new))

        def told(state: Mapping[str, Tensor], part: str = part, *, known: bool) -> dict[str, Any] | None:
            attack = membership(config, before, part, state, groups.forget_F, groups.other_O, known=known)
            return None if attack is None else attack._asdict()

        values = [quality(config, after, part, state) for state in (carried(was, before, after), now)]
        found[part] = {
            "attack": {"before": told(was, known=True), "after": told(carried(now, after, before), known=False)},
            "others": {
                "metric": values[0] and values[0][0], "before": values[0] and values[0][1], "after": values[1] and values[1][1],
                "users": int((after.events(TEST)[1] > 0).sum()),
            },
            "trained_on": int((before.events(TRAIN)[1][groups.forget_F] > 0).sum()),
        }  # fmt: skip
    return found


def _write(
    config: RunConfig, part: str, old: Workspace, new: Workspace, data: Dataset, state: Mapping[str, Tensor],
    forgot: Mapping[str, Any],
) -> None:  # fmt: skip
    source: Path = old.checkpoint(part)
    manifest = read_manifest(source, "checkpoint")
    kept = {name: manifest[name] for name in COPIED if name in manifest}
    trained = {name: manifest["identity"][name] for name in ("fit", "seed", "start") if name in manifest["identity"]}
    own = {**identity(config, data, part), **trained}
    with write_artefact(new.checkpoint(part), "checkpoint", identity=own, best=None, forgot=dict(forgot), **kept) as (
        folder,
        _,
    ):
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / MODEL_FILE)
        (folder / HISTORY_FILE).write_bytes((source / HISTORY_FILE).read_bytes())
