"""Embedding tables in TorchRec collections. The only importer of TorchRec beside `recsys.train`.

Shapes: B = rows of the batch, N = ids of a feature, D = width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    KeyedJaggedTensor,
    PoolingType,
)

from recsys.batch import Ids

META = torch.device("meta")  # DistributedModelParallel gives a table its memory where the planner puts it


@dataclass(frozen=True)
class TableShape:
    """A table and the features that look it up."""

    name: str
    rows: int
    dim: int
    features: tuple[str, ...]


class SequenceEmbeddings(nn.Module):
    """One vector per id."""

    def __init__(self, tables: Sequence[TableShape], init_std: float):
        super().__init__()
        self.tables = [t.name for t in tables]
        configs = [
            EmbeddingConfig(
                name=t.name,
                num_embeddings=t.rows,
                embedding_dim=t.dim,
                feature_names=list(t.features),
                init_fn=_normal(init_std),
            )
            for t in tables
        ]
        self.collection = EmbeddingCollection(tables=configs, device=META)

    def forward(self, ids: Mapping[str, Ids]) -> dict[str, Tensor]:
        """Vectors vector_ND by feature name."""
        found = self.collection(_keyed(ids))
        return {name: found[name].values() for name in ids}


class PooledEmbeddings(nn.Module):
    """The mean vector of each row's ids; zeros for an empty row."""

    def __init__(self, tables: Sequence[TableShape], init_std: float):
        super().__init__()
        self.tables = [t.name for t in tables]
        configs = [
            EmbeddingBagConfig(
                name=t.name, num_embeddings=t.rows, embedding_dim=t.dim, feature_names=list(t.features),
                pooling=PoolingType.MEAN, init_fn=_normal(init_std),
            )
            for t in tables
        ]  # fmt: skip
        self.collection = EmbeddingBagCollection(tables=configs, device=META)

    def forward(self, ids: Mapping[str, Ids]) -> dict[str, Tensor]:
        """Vectors vector_BD by feature name."""
        found = self.collection(_keyed(ids))
        return {name: found[name] for name in ids}


def _keyed(ids: Mapping[str, Ids]) -> KeyedJaggedTensor:
    return KeyedJaggedTensor(
        keys=list(ids),
        values=torch.cat([row.value_N for row in ids.values()]),
        lengths=torch.cat([row.length_B for row in ids.values()]),
    )


def _normal(std: float) -> Callable[[Tensor], Tensor]:
    return lambda weight: nn.init.normal_(weight, std=std)
