"""One process on a CPU and many under torchrun run the same code: DistributedModelParallel with fused optimizers."""

import ctypes
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
import torchrec.optim as optim
from torch import Tensor, nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.types import ShardingType
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from recsys.errors import InputError
from recsys.models.embeddings import PooledEmbeddings, SequenceEmbeddings
from recsys.models.managed_collision import require_rows
from recsys.train.managed import sharders

T = TypeVar("T")

TABLES = "embeddings."  # what the names of a model's table parameters begin with

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
NOISY = ("torchrec", "torch.distributed", "fbgemm_gpu", "torch.fx", "root")


def keep_freed_memory() -> None:
    """Let glibc hand large freed tensors out again instead of giving them back to the system after every step, which has to
    clear each of their pages anew. Nothing happens with another C library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, size in ((M_MMAP_THRESHOLD, 2**31 - 1), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            mallopt(option, size)


def has_fast_half(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself; a CPU that does not does so in software, slower than float32."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def process_group() -> Iterator[torch.device]:
    """Join torchrun's group, or make a group of one without a network. Yield the device of this process."""
    keep_freed_memory()
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


def shard(tables: nn.Module, device: torch.device, *, optimizer: str, learning_rate: float) -> DistributedModelParallel:
    """Place tables by TorchRec's planner, their optimizer fused into the backward pass.

    `optimizer`: rowwise_adagrad (one accumulator per row), adam, which FBGEMM has for GPUs only, or sgd. Row-wise Adagrad
    reached a higher NDCG than Adam in the same time on ml-1m (docs/results.md).
    """
    if optimizer == "adam" and device.type != "cuda":
        raise InputError("fit.embedding_optimizer adam needs a GPU, where FBGEMM has a kernel for it: use rowwise_adagrad")
    kind = {"rowwise_adagrad": optim.RowWiseAdagrad, "adam": optim.Adam, "sgd": optim.SGD}[optimizer]
    constraints: dict[str, ParameterConstraints] = {}
    for module in tables.modules():
        if isinstance(module, SequenceEmbeddings | PooledEmbeddings):
            apply_optimizer_in_backward(kind, module.parameters(), {"lr": learning_rate})
            constraints |= {name: _placement(module, name, device) for name in module.tables}
    world_size = dist.get_world_size()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None  # else it supposes 32 GiB
    topology = Topology(world_size, device.type, hbm_cap=memory, local_world_size=local)
    planner = EmbeddingShardingPlanner(topology, constraints=constraints)
    plan = planner.collective_plan(tables, sharders(), dist.group.WORLD)
    return DistributedModelParallel(tables, device=device, plan=plan, sharders=sharders())


def _placement(module: SequenceEmbeddings | PooledEmbeddings, table: str, device: torch.device) -> ParameterConstraints:
    """Whole tables or blocks of rows, always fused. Left alone the planner replicates small tables with a dense kernel, whose
    optimizer state is in no state_dict and whose learning rate nobody decays. Tables with an id map go by rows only."""
    if table in module.managed_rows:
        require_rows(table, module.managed_rows[table], dist.get_world_size())
        return ParameterConstraints(sharding_types=[ShardingType.ROW_WISE.value], compute_kernels=["fused"])
    by_row = [ShardingType.ROW_WISE.value] if isinstance(module, SequenceEmbeddings) or device.type == "cuda" else []
    return ParameterConstraints(sharding_types=[ShardingType.TABLE_WISE.value, *by_row], compute_kernels=["fused"])


def place(
    model: nn.Module, device: torch.device, *, optimizer: str = "rowwise_adagrad", learning_rate: float = 0.0
) -> nn.Module:
    """Shard the model's `embeddings`, move the dense rest to the device and make it the same on every process."""
    model.embeddings = shard(model.embeddings, device, optimizer=optimizer, learning_rate=learning_rate)
    model.to(device)
    if dist.get_world_size() > 1:
        for tensor in [*dense_parameters(model), *(t for n, t in model.named_buffers() if not n.startswith(TABLES))]:
            dist.broadcast(tensor.detach(), src=0)
    return model


def dense_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Everything but the tables."""
    return [parameter for name, parameter in model.named_parameters() if not name.startswith(TABLES)]


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Every process gets the mean of all their gradients, in one message."""
    if dist.get_world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    joined = mean_over_ranks(torch.cat([parameter.grad.flatten() for parameter in parameters]))
    for parameter, part in zip(parameters, joined.split([p.numel() for p in parameters]), strict=True):
        parameter.grad.copy_(part.view_as(parameter))


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


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
