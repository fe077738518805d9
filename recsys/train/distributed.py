"""One process on a CPU and many under torchrun run the same code: DistributedModelParallel with fused optimizers."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
import torchrec.optim as optim
from torch import Tensor, nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.sharding_plan import get_default_sharders
from torchrec.distributed.types import ShardingType
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from recsys.models.embeddings import PooledEmbeddings, SequenceEmbeddings

T = TypeVar("T")

NOISY = ("torchrec", "torch.distributed", "fbgemm_gpu", "torch.fx", "root")


@contextmanager
def process_group() -> Iterator[torch.device]:
    """Join torchrun's group, or make a group of one without a network. Yield the device of this process."""
    warnings.filterwarnings("ignore", module="torch|torchrec|fbgemm_gpu")
    warnings.filterwarnings("ignore", message="Please use DTensor")  # TorchRec still shards its tables this way
    for name in NOISY:
        logging.getLogger(None if name == "root" else name).setLevel(logging.ERROR)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    os.environ.setdefault("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, rank=0, world_size=1, store=dist.HashStore())
    try:
        yield device
    finally:
        dist.destroy_process_group()


def shard(model: nn.Module, device: torch.device, *, embedding_lr: float) -> DistributedModelParallel:
    """Place tables by TorchRec's planner, their optimizer fused into the backward pass; dense parts in data parallel.

    Row-wise Adagrad: one accumulator per row. FBGEMM has no Adam on a CPU, and it reached a higher NDCG than Adam in
    the same time on ml-1m (docs/results.md).
    """
    constraints: dict[str, ParameterConstraints] = {}
    for module in model.modules():
        if isinstance(module, SequenceEmbeddings | PooledEmbeddings):
            apply_optimizer_in_backward(optim.RowWiseAdagrad, module.parameters(), {"lr": embedding_lr})
            constraints |= {name: _placement(module, device) for name in module.tables}
    world_size = dist.get_world_size()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    planner = EmbeddingShardingPlanner(Topology(world_size, device.type, local_world_size=local), constraints=constraints)
    plan = planner.collective_plan(model, get_default_sharders(), dist.group.WORLD)
    return DistributedModelParallel(model, device=device, plan=plan)


def _placement(module: nn.Module, device: torch.device) -> ParameterConstraints:
    """Whole tables or blocks of rows, always fused. Left alone the planner replicates small tables with a dense kernel, whose
    optimizer state is in no state_dict and whose learning rate nobody decays."""
    by_row = [ShardingType.ROW_WISE.value] if isinstance(module, SequenceEmbeddings) or device.type == "cuda" else []
    return ParameterConstraints(sharding_types=[ShardingType.TABLE_WISE.value, *by_row], compute_kernels=["fused"])


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if dist.get_world_size() > 1:
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def every_rank(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks."""
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return [each for each in values if each is not None]


def from_first_rank(value: T) -> T:
    """The value of rank 0, on every process, so that all decide alike."""
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
