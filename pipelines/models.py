"""From a config and a dataset to models, in their training and their serving forms."""

import torch
from torch import Tensor

from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.models.item_codes import ItemCodes
from recsys.models.ranker import Ranker, RankerDesign, RankingGraph
from recsys.models.retriever import RetrievalGraph, Retriever

CPU = torch.device("cpu")


def item_codes(config: RunConfig, data: Dataset, device: torch.device = CPU) -> ItemCodes:
    """The look-ups of every item, with the features of the retriever's tower."""
    features = {name: data.codes(name, "item") for name in config.retriever.tower.features}
    return ItemCodes.make(data.train_count_I, features, device)


def retriever(config: RunConfig, data: Dataset) -> Retriever:
    """The training form, its tables still without memory."""
    part = config.retriever
    sizes = {f["name"]: f["size"] for f in data.features if f["owner"] == "item"}
    features = {name: sizes[name] for name in part.tower.features}
    return Retriever(part.encoder, part.tower, data.num_items, features, config.max_history)


def retrieval_graph(
    config: RunConfig, data: Dataset, state: dict[str, Tensor], *, score_dim: int | None = None
) -> RetrievalGraph:
    """The serving form of a trained retriever. `score_dim`: numbers of the vectors that are scored, by default serving.dim."""
    part = config.retriever
    return RetrievalGraph.from_checkpoint(
        state, part.encoder, part.tower, item_codes(config, data), config.max_history, config.serving.num_candidates,
        for_user=lambda vectors: part.similarity(vectors, vectors)[0],
        for_item=lambda vectors: part.similarity(vectors, vectors)[1],
        score_dim=score_dim or config.serving.dim,
    )  # fmt: skip


def ranker_design(config: RunConfig) -> RankerDesign:
    part = config.ranker
    return RankerDesign(
        part.history, part.interaction, part.sharing, part.dim, tuple(config.tasks), frozenset(config.regression), part.dropout,
        part.tables,
    )  # fmt: skip


def ranker(config: RunConfig, data: Dataset) -> Ranker:
    """The training form, its tables still without memory. Raises InputError where `ranker.tables` names no table."""
    known = ["user", "item", *(f["name"] for f in data.features)]
    for name in config.ranker.tables:
        if name not in known:
            raise InputError(f"ranker.tables names {name!r}, which is no table: choose from {known}")
    return Ranker(ranker_design(config), data.num_users, data.num_items, data.features)


def ranking_graph(config: RunConfig, data: Dataset, state: dict[str, Tensor]) -> RankingGraph:
    """The serving form of a trained ranker."""
    codes = {f["name"]: data.codes(f["name"], f["owner"]) for f in data.features if f["owner"] != "context"}
    num_ids = {"user": data.num_users, "item": data.num_items, **{f["name"]: f["size"] for f in data.features}}
    return RankingGraph(state, ranker_design(config), data.features, codes, config.ranker_history, num_ids)
