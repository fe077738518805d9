"""A training state as plain tensors: gathered from all processes, stored without pickle, loaded at any number of them."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed import DistributedModelParallel

FUSED = "fused_optimizer/"


def model_state(model: DistributedModelParallel) -> dict[str, Tensor]:
    """Parameters by name, whole and on the CPU, on every process. A collective call."""
    return {name: _gather(value) for name, value in model.state_dict().items()}


def fused_state(model: DistributedModelParallel) -> dict[str, Tensor]:
    """State of the fused optimizers, as `model_state`."""
    return {name: _gather(value) for name, value in _fused_tensors(model).items()}


def load_model_state(model: DistributedModelParallel, state: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into this process's shards."""
    _scatter(model.state_dict(), state)


def load_fused_state(model: DistributedModelParallel, state: Mapping[str, Tensor]) -> None:
    _scatter(_fused_tensors(model), state)


def _fused_tensors(model: DistributedModelParallel) -> dict[str, Tensor | ShardedTensor]:
    states = model.fused_optimizer.state_dict()["state"]
    return {f"{table}/{name}": value for table, parts in states.items() for name, value in parts.items() if not isinstance(value, int | float)}


def _gather(value: Tensor | ShardedTensor) -> Tensor:
    if not isinstance(value, ShardedTensor):
        return value.detach().cpu().clone()
    whole = torch.zeros(value.size(), dtype=value.dtype)
    if dist.get_world_size() == 1:
        for part in value.local_shards():
            whole[_place(part.metadata)] = part.tensor.detach().cpu()
        return whole
    device = value.local_shards()[0].tensor.device if value.local_shards() else torch.device("cpu")
    target = whole.to(device) if dist.get_rank() == 0 else None
    value.gather(dst=0, out=target)
    whole = target if target is not None else whole.to(device)
    dist.broadcast(whole, src=0)
    return whole.cpu()


def _scatter(live: Mapping[str, Tensor | ShardedTensor], state: Mapping[str, Tensor]) -> None:
    missing = sorted(live.keys() ^ state.keys())
    assert not missing, f"state of another model, these differ: {missing[:5]}"
    with torch.no_grad():
        for name, value in live.items():
            if isinstance(value, ShardedTensor):
                for part in value.local_shards():
                    part.tensor.copy_(state[name][_place(part.metadata)])
            else:
                value.copy_(state[name])


def _place(metadata) -> tuple[slice, ...]:  # noqa: ANN001 - ShardMetadata is private to torch
    return tuple(slice(o, o + s) for o, s in zip(metadata.shard_offsets, metadata.shard_sizes, strict=True))
