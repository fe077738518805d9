"""A training state as plain tensors: gathered from all processes, stored without pickle, loaded at any number of them."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recsys.artefact import fingerprint, read_manifest, write_artefact
from recsys.errors import InputError
from recsys.train.distributed import TABLES, every_rank

FUSED = "fused_optimizer/"
RESUME_FILE = "resume.safetensors"
log = logging.getLogger(__name__)


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, whole and on the CPU, on every process. A collective call."""
    return _gather(_live(model))


def fused_state(model: nn.Module) -> dict[str, Tensor]:
    """State of the fused optimizers, as `model_state`."""
    return _gather(_fused_tensors(model))


def load_model_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into this process's shards."""
    live = _live(model)
    if differing := sorted(live.keys() ^ state.keys()):
        raise InputError(
            f"the checkpoint is of another model, {differing[0]} is in one of them only: train again with this config"
        )
    for name, value in live.items():
        if tuple(value.size()) != tuple(state[name].shape):
            raise InputError(
                f"the checkpoint is of another model, {name} is {tuple(state[name].shape)} there and {tuple(value.size())} "
                "here: train again with this config"
            )
    _scatter(live, state)


def load_fused_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    _scatter(_fused_tensors(model), state)


def _live(model: nn.Module) -> dict[str, Tensor | ShardedTensor]:
    """The tensors themselves. DistributedModelParallel names its own wrongly when it is asked as a part of a larger model."""
    live = {TABLES + name: value for name, value in model.embeddings.state_dict().items()}
    for name, child in model.named_children():
        if f"{name}." != TABLES:
            live |= child.state_dict(prefix=f"{name}.")
    return live


def _fused_tensors(model: nn.Module) -> dict[str, Tensor | ShardedTensor]:
    """Only the tables that have a shard on this process, so the names differ between processes."""
    states = model.embeddings.fused_optimizer.state_dict()["state"]
    return {
        f"{table}/{name}": value
        for table, parts in states.items()
        for name, value in parts.items()
        if not isinstance(value, int | float)
    }


class _Shard(NamedTuple):
    """A part of a tensor that one process holds."""

    name: str
    whole: tuple[int, ...]
    place: tuple[slice, ...]
    dtype: torch.dtype


def _gather(live: Mapping[str, Tensor | ShardedTensor]) -> dict[str, Tensor]:
    """Every process sends each of its shards to all; what is not sharded is the same everywhere."""
    shards = [
        (_Shard(name, tuple(value.size()), _place(part.metadata), part.tensor.dtype), part.tensor.detach())
        for name, value in live.items()
        if isinstance(value, ShardedTensor)
        for part in value.local_shards()
    ]
    state = {name: value.detach().cpu().clone() for name, value in live.items() if not isinstance(value, ShardedTensor)}
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    for rank, descriptions in enumerate(every_rank([shard for shard, _ in shards])):
        for index, shard in enumerate(descriptions):
            whole = state.setdefault(shard.name, torch.zeros(shard.whole, dtype=shard.dtype))
            part = shards[index][1] if rank == dist.get_rank() else torch.empty(whole[shard.place].shape, dtype=shard.dtype)
            if dist.get_world_size() > 1:
                part = part.to(device).contiguous()
                dist.broadcast(part, src=rank)
            whole[shard.place] = part.cpu()
    return state


def _scatter(live: Mapping[str, Tensor | ShardedTensor], state: Mapping[str, Tensor]) -> None:
    missing = sorted(live.keys() - state.keys())
    assert not missing, f"state of another model, these are missing: {missing[:5]}"
    with torch.no_grad():
        for name, value in live.items():
            if isinstance(value, ShardedTensor):
                for part in value.local_shards():
                    part.tensor.copy_(state[name][_place(part.metadata)])
            else:
                value.copy_(state[name])


def _place(metadata: Any) -> tuple[slice, ...]:
    return tuple(slice(o, o + s) for o, s in zip(metadata.shard_offsets, metadata.shard_sizes, strict=True))


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Checkpoints:
    """The newest `keep` checkpoints of a run, each a folder of its own that is written aside and renamed."""

    folder: Path
    keep: int

    def write(self, tensors: Mapping[str, Tensor], *, step: int, identity: dict[str, Any], state: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_artefact(self._path(step), "checkpoint", identity=identity, state=state) as (folder, _):
            save_file({name: t.contiguous() for name, t in tensors.items()}, folder / RESUME_FILE)
        for old in self._steps():
            if old > step or old not in self._steps()[-self.keep :]:  # a later step is of a run that was begun anew
                shutil.rmtree(self._path(old))

    def newest(self, identity: dict[str, Any]) -> int | None:
        """The step of the newest whole checkpoint of this identity. Raises InputError where all checkpoints are damaged."""
        damage: InputError | None = None
        for step in reversed(self._steps()):
            try:
                manifest = read_manifest(self._path(step), "checkpoint", verify=True)
            except InputError as error:
                log.warning("%s: the checkpoint before it is used", error)
                damage = damage or error
                continue
            return step if fingerprint(manifest["identity"]) == fingerprint(identity) else None
        if damage is not None:
            raise InputError(f"{damage}, after removing {self.folder} to begin anew") from damage
        return None

    def read(self, step: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The manifest and the tensors, which are mapped and not copied."""
        return read_manifest(self._path(step), "checkpoint"), load_file(self._path(step) / RESUME_FILE)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}"

    def _steps(self) -> list[int]:
        """A folder that a killed write has moved aside counts: reading it moves it back."""
        names = {
            path.name.removeprefix(".").removesuffix(".old") for path in self.folder.glob("*step-*") if path.suffix != ".tmp"
        }
        return sorted(int(name.removeprefix("step-")) for name in names)
