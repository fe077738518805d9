"""How TorchRec shards tables with an id map: by rows, and a row that changes hands begins anew.

TorchRec 1.8 resets the row of an evicted id with `fbgemm::reset_weight_momentum`, which FBGEMM 1.8 has for CUDA only: on a CPU
the first eviction raises NotImplementedError. The reset here is plain indexing and works on both.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.mc_embedding import (
    ManagedCollisionEmbeddingCollectionSharder,
    ShardedManagedCollisionEmbeddingCollection,
)
from torchrec.distributed.mc_embeddingbag import (
    ManagedCollisionEmbeddingBagCollectionSharder,
    ShardedManagedCollisionEmbeddingBagCollection,
)
from torchrec.distributed.types import ModuleSharder, ParameterSharding, ShardingEnv, ShardingType

from recsys.models.embeddings import REVISION, RowMap


class _Bags(ShardedManagedCollisionEmbeddingBagCollection):
    def _evict(self, evictions_per_table: dict[str, Tensor | None]) -> None:
        _begin_anew(self, self._embedding_module.embedding_bags, evictions_per_table)


class _Sequences(ShardedManagedCollisionEmbeddingCollection):
    def _evict(self, evictions_per_table: dict[str, Tensor | None]) -> None:
        _begin_anew(self, self._embedding_module.embeddings, evictions_per_table)


def _begin_anew(sharded: Any, tables: nn.Module, evictions: Mapping[str, Tensor | None]) -> None:
    """New vectors and zero accumulators for this process's rows that an id was given."""
    with torch.no_grad():
        for table, row_E in evictions.items():
            if row_E is None or len(row_E) == 0:
                continue
            weight = tables.get_parameter(f"{table}.weight")
            begin = sharded._embedding_module._table_name_to_config[table].init_fn
            weight.data[row_E] = begin(torch.empty_like(weight[row_E]))
            fused, place = sharded._table_to_tbe_and_index[table]
            states = fused.split_optimizer_states()  # views; SGD has none
            for each_R in states[int(place)] if states else []:
                each_R[row_E] = 0


class _RowWiseBags(EmbeddingBagCollectionSharder):
    """TorchRec leaves row-wise out on a CPU, where it works, and shards managed collision no other way."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return sorted({ShardingType.ROW_WISE.value, *super().sharding_types(compute_device_type)})


class ManagedBagSharder(ManagedCollisionEmbeddingBagCollectionSharder):
    def __init__(self) -> None:
        super().__init__(ebc_sharder=_RowWiseBags())

    def shard(
        self, module: nn.Module, params: dict[str, ParameterSharding], env: ShardingEnv, device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> _Bags:  # fmt: skip
        assert device is not None
        return _Bags(module, params, ebc_sharder=self._e_sharder, mc_sharder=self._mc_sharder, env=env, device=device)

    @property
    def sharded_module_type(self) -> type:
        return _Bags


class ManagedSequenceSharder(ManagedCollisionEmbeddingCollectionSharder):
    def shard(
        self, module: nn.Module, params: dict[str, ParameterSharding], env: ShardingEnv, device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> _Sequences:  # fmt: skip
        assert device is not None
        return _Sequences(module, params, ec_sharder=self._e_sharder, mc_sharder=self._mc_sharder, env=env, device=device)

    @property
    def sharded_module_type(self) -> type:
        return _Sequences


def sharders() -> list[ModuleSharder[nn.Module]]:
    """One sharder for each kind of collection that `recsys.models.embeddings` makes."""
    return [EmbeddingBagCollectionSharder(), EmbeddingCollectionSharder(), ManagedBagSharder(), ManagedSequenceSharder()]


def pending_ids(model: nn.Module) -> dict[str, Tensor]:
    """What the id maps have read since their last revision, of all processes; part of a state to resume. A collective call."""
    own = {table: {name: t.cpu() for name, t in each.pending().items()} for table, each in _row_maps(model).items()}
    processes: list[dict[str, dict[str, Tensor]]] = [own] * dist.get_world_size()
    dist.all_gather_object(processes, own)
    pending = {f"{table}/{name}": [each[table][name] for each in processes] for table, parts in own.items() for name in parts}
    return {name: parts[0].clone() if name.endswith(f"/{REVISION}") else torch.cat(parts) for name, parts in pending.items()}


def load_pending_ids(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """The other way, on any number of processes; after `load_model_state`."""
    for table, each in _row_maps(model).items():
        parts = {name.removeprefix(f"{table}/"): t for name, t in saved.items() if name.startswith(f"{table}/")}
        if parts:
            own_N = parts["ids"] % dist.get_world_size() == dist.get_rank()
            parts = {name: t if name == REVISION else t[own_N] for name, t in parts.items()}
        each.load_pending(parts)


def _row_maps(model: nn.Module) -> dict[str, RowMap]:
    return {name.rpartition(".")[2]: module for name, module in model.named_modules() if isinstance(module, RowMap)}
