"""A training state as plain tensors: gathered from all processes, stored without pickle, loaded at any number of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed import DistributedModelParallel

from recsys.train.distributed import every_rank

FUSED = "fused_optimizer/"


def model_state(model: DistributedModelParallel) -> dict[str, Tensor]:
    """Parameters by name, whole and on the CPU, on every process. A collective call."""
    return _gather(model.state_dict())


def fused_state(model: DistributedModelParallel) -> dict[str, Tensor]:
    """State of the fused optimizers, as `model_state`."""
    return _gather(_fused_tensors(model))


def load_model_state(model: DistributedModelParallel, state: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into this process's shards."""
    live = model.state_dict()
    differing = sorted(live.keys() ^ state.keys())
    assert not differing, f"state of another model, these differ: {differing[:5]}"
    _scatter(live, state)


def load_fused_state(model: DistributedModelParallel, state: Mapping[str, Tensor]) -> None:
    _scatter(_fused_tensors(model), state)


def _fused_tensors(model: DistributedModelParallel) -> dict[str, Tensor | ShardedTensor]:
    """Only the tables that have a shard on this process, so the names differ between processes."""
    states = model.fused_optimizer.state_dict()["state"]
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
