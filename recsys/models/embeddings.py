"""Embedding tables in TorchRec collections. The only importer of TorchRec beside `recsys.train`.

Shapes: B = rows of the batch, N = ids of a feature, D = width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    JaggedTensor,
    KeyedJaggedTensor,
    PoolingType,
)
from torchrec.modules.mc_embedding_modules import ManagedCollisionEmbeddingBagCollection, ManagedCollisionEmbeddingCollection
from torchrec.modules.mc_modules import (
    DistanceLFU_EvictionPolicy,
    LFU_EvictionPolicy,
    LRU_EvictionPolicy,
    ManagedCollisionCollection,
    MCHEvictionPolicy,
    MCHManagedCollisionModule,
)

from recsys.batch import Ids
from recsys.models.managed_collision import ManagedCollision

REVISION = "last_revision"  # the step of it; the same on all processes
META = torch.device("meta")  # DistributedModelParallel gives a table its memory where the planner puts it


@dataclass(frozen=True)
class TableShape:
    """A table and the features that look it up. With `managed`, that has the rows and `rows` counts the ids."""

    name: str
    rows: int
    dim: int
    features: tuple[str, ...]
    managed: ManagedCollision | None = None
    uncounted: tuple[str, ...] = ()  # features that read without a claim to a row, as sampled negatives do


class SequenceEmbeddings(nn.Module):
    """One vector per id."""

    def __init__(self, tables: Sequence[TableShape], init_std: float):
        super().__init__()
        self.tables = [t.name for t in tables]
        self.managed_rows = {t.name: t.managed.rows for t in tables if t.managed}
        self.managed_features = {feature for t in tables if t.managed for feature in t.features}
        plain, managed = _by_kind(tables, EmbeddingConfig, init_fn=_normal(init_std))
        self.collection = EmbeddingCollection(tables=plain, device=META) if plain else None
        self.managed_collection = None
        if managed:
            collection = EmbeddingCollection(tables=managed, device=META)
            self.managed_collection = ManagedCollisionEmbeddingCollection(collection, _maps(tables, managed))

    def forward(self, ids: Mapping[str, Ids]) -> dict[str, Tensor]:
        """Vectors vector_ND by feature name."""
        return {name: found.values() for name, found in _look_up(self, ids).items()}


class PooledEmbeddings(nn.Module):
    """The mean vector of each row's ids; zeros for an empty row."""

    def __init__(self, tables: Sequence[TableShape], init_std: float):
        super().__init__()
        self.tables = [t.name for t in tables]
        self.managed_rows = {t.name: t.managed.rows for t in tables if t.managed}
        self.managed_features = {feature for t in tables if t.managed for feature in t.features}
        plain, managed = _by_kind(tables, EmbeddingBagConfig, pooling=PoolingType.MEAN, init_fn=_normal(init_std))
        self.collection = EmbeddingBagCollection(tables=plain, device=META) if plain else None
        self.managed_collection = None
        if managed:
            collection = EmbeddingBagCollection(tables=managed, device=META)
            self.managed_collection = ManagedCollisionEmbeddingBagCollection(collection, _maps(tables, managed))

    def forward(self, ids: Mapping[str, Ids]) -> dict[str, Tensor]:
        """Vectors vector_BD by feature name."""
        return _look_up(self, ids)


class RowMap(MCHManagedCollisionModule):
    """TorchRec's map from ids to rows, which a killed run can resume exactly.

    Differs from TorchRec: the ids read since the last revision can be saved (it forgets them); their buffer grows (it has
    the size of the first batch times 1.25, and what does not fit is dropped); features can read without being counted.
    """

    _current_history_buffer_offset: int
    _input_history_buffer_size: int
    counted: int | None = None  # only the first so many features of the table; None: all

    def profile(self, features: dict[str, JaggedTensor]) -> dict[str, JaggedTensor]:
        if self.training:
            read = {name: self._counted(feature) for name, feature in features.items()}
            self._make_room(sum(len(feature.values()) for feature in read.values()))
            super().profile(read)
        return features

    def _counted(self, feature: JaggedTensor) -> JaggedTensor:
        if self.counted is None:
            return feature
        length_F = feature.weights()  # how many ids each feature has: TorchRec's way to tell
        return JaggedTensor(values=feature.values()[: int(length_F[: self.counted].sum())], lengths=feature.lengths())

    def _make_room(self, more: int) -> None:
        used, size = self._current_history_buffer_offset, self._input_history_buffer_size
        if used + more <= size:
            return
        size, device = 2 * (used + more), self.device
        old = self.pending()
        self._history_accumulator = torch.empty(size, dtype=torch.int64, device=device)
        for name, _, of_history in self._eviction_policy.metadata_info:
            if of_history:
                self._history_metadata[name] = torch.zeros(size, dtype=torch.int64, device=device)
        self._input_history_buffer_size = size
        self._fill(old)

    def pending(self) -> dict[str, Tensor]:
        """What was read since the last revision; `load_pending` takes it."""
        used = self._current_history_buffer_offset
        if self._input_history_buffer_size == -1:
            return {}
        metadata = {name: buffer[:used] for name, buffer in self._history_metadata.items()}
        return {"ids": self._history_accumulator[:used], REVISION: torch.tensor([self._last_eviction_iter]), **metadata}

    def load_pending(self, saved: Mapping[str, Tensor]) -> None:
        """Go on in the middle of an interval, or with nothing saved at the beginning of one. The map is loaded before."""
        self._current_history_buffer_offset, self._current_iter = 0, -1  # -1: read it from the map's own counter
        if saved:
            self._current_iter, self._last_eviction_iter = int(self._current_iter_tensor), int(saved[REVISION])
            self._make_room(len(saved["ids"]))
            self._fill(saved)

    def _fill(self, saved: Mapping[str, Tensor]) -> None:
        if saved:
            used = len(saved["ids"])
            self._history_accumulator[:used] = saved["ids"]
            for name, buffer in self._history_metadata.items():
                buffer[:used] = saved[name]
            self._current_history_buffer_offset = used

    def buckets(self) -> int:
        """One block of rows per process. TorchRec would have the number before it knows that of the processes."""
        return dist.get_world_size() if dist.is_initialized() else 1

    def rebuild_with_output_id_range(self, *args: Any, **kwargs: Any) -> "RowMap":
        rebuilt: RowMap = super().rebuild_with_output_id_range(*args, **kwargs)
        rebuilt.counted = self.counted
        return rebuilt


def _by_kind(tables: Sequence[TableShape], config: type, **options: Any) -> tuple[list[Any], list[Any]]:
    """TorchRec's configs of the tables without and with a map. Features that are not counted come last, as RowMap has it."""
    configs: tuple[list[Any], list[Any]] = ([], [])
    for t in tables:
        rows = t.managed.rows if t.managed else t.rows
        features = [*(f for f in t.features if f not in t.uncounted), *t.uncounted]
        row = config(name=t.name, num_embeddings=rows, embedding_dim=t.dim, feature_names=features, **options)
        configs[t.managed is not None].append(row)
    return configs


def _maps(tables: Sequence[TableShape], configs: Sequence[Any]) -> ManagedCollisionCollection:
    return ManagedCollisionCollection({t.name: _row_map(t, t.managed) for t in tables if t.managed}, configs)


def _row_map(table: TableShape, spec: ManagedCollision) -> RowMap:
    row_map = RowMap(
        zch_size=spec.rows, device=torch.device("cpu"), eviction_policy=_policy(spec), eviction_interval=spec.interval,
        input_hash_size=0,  # ids go to processes by remainder; by TorchRec's default range all dense ids would go to the first
    )  # fmt: skip
    row_map.counted = len(table.features) - len(table.uncounted) if table.uncounted else None
    return row_map


def _policy(spec: ManagedCollision) -> MCHEvictionPolicy:
    match spec.eviction:
        case "lfu":
            return LFU_EvictionPolicy()
        case "lru":
            return LRU_EvictionPolicy()
        case "distance_lfu":
            return DistanceLFU_EvictionPolicy()
        case _:
            assert_never(spec.eviction)


def _look_up(module: SequenceEmbeddings | PooledEmbeddings, ids: Mapping[str, Ids]) -> dict[str, Any]:
    """What the two collections find, in the order of `ids`."""
    found: dict[str, Any] = {}
    plain = {name: row for name, row in ids.items() if name not in module.managed_features}
    managed = {name: row for name, row in ids.items() if name in module.managed_features}
    if module.collection is not None:
        found |= _by_name(module.collection(_keyed(plain)))
    if module.managed_collection is not None:
        vectors, _ = module.managed_collection(_keyed(managed))
        found |= _by_name(vectors)
    return {name: found[name] for name in ids}


def _by_name(vectors: Any) -> dict[str, Any]:
    """One split: a slice for each name would fill a gradient of the full width each."""
    split = getattr(vectors, "to_dict", None)  # of pooled vectors; those of sequences are a dictionary
    found: dict[str, Any] = dict(vectors.items()) if split is None else split()
    return found


def _keyed(ids: Mapping[str, Ids]) -> KeyedJaggedTensor:
    return KeyedJaggedTensor(
        keys=list(ids),
        values=torch.cat([row.value_N for row in ids.values()]),
        lengths=torch.cat([row.length_B for row in ids.values()]),
    )


def _normal(std: float) -> Callable[[Tensor], Tensor]:
    return lambda weight: nn.init.normal_(weight, std=std)
