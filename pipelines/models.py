"""From a config and a dataset to models, in their training and their serving forms."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recsys.columns import FIRST_ID, TRAIN, feature
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.generate.decoder import codebooks
from recsys.generate.generator import CODES, DECODER, GenerationGraph, Generator, generator_codes
from recsys.generate.ids import SemanticIds
from recsys.models.dense_features import Scale
from recsys.models.item_codes import ItemCodes
from recsys.models.ranker import Ranker, RankerDesign, RankingGraph
from recsys.models.retriever import CONTENT_TABLE, ITEM_TABLE, RetrievalGraph, Retriever

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


def generator_item_codes(config: RunConfig, data: Dataset, ids: SemanticIds, device: torch.device = CPU) -> ItemCodes:
    """The look-ups of every item, with its semantic id and the features of the generator's tower."""
    assert config.generator is not None
    features = {name: data.codes(name, "item") for name in config.generator_tower.features}
    return generator_codes(ids, data.train_count_I, features, own_row=config.generator.own_row, device=device)


def generator(config: RunConfig, data: Dataset, ids: SemanticIds) -> Generator:
    """The training form, its tables still without memory."""
    part = config.generator
    assert part is not None
    sizes = {f["name"]: f["size"] for f in data.features if f["owner"] == "item"}
    features = {name: sizes[name] for name in config.generator_tower.features}
    return Generator(config.generator_encoder, config.generator_tower, part.decoder, ids, features, config.max_history)


def generator_start(config: RunConfig, data: Dataset, ids: SemanticIds, retriever: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters to begin with: a trained retriever's, and for the decoder its item vectors rounded to their codes.

    The codes' vectors on the side of the history begin at 0, so that a history is read as the retriever reads it. Where items
    have no rows of their own, they begin as what these rows are rounded to.
    """
    assert config.generator is not None
    graph = retrieval_graph(config, data, retriever, score_dim=config.retriever.encoder.dim)
    code_IT = torch.from_numpy(ids.code_IT[FIRST_ID:].astype("int64"))
    vector_ID = nn.functional.normalize(graph.scored_ID[FIRST_ID:].detach(), dim=1)
    books = codebooks(code_IT, vector_ID, ids.sizes)
    table = torch.zeros(sum(ids.sizes), config.retriever.encoder.dim)
    if not config.generator.own_row:
        known_I = torch.from_numpy(data.train_count_I > 0)
        own_ID = (retriever[ITEM_TABLE] * known_I[:, None])[FIRST_ID:]
        table = torch.cat(codebooks(code_IT, own_ID, ids.sizes)) * ids.levels  # an item is the mean of its codes' vectors
    scores = {f"{DECODER}score.{level}": vector_KD for level, vector_KD in enumerate(books)}
    return retriever | scores | {CONTENT_TABLE.format(CODES): table}


def generation_graph(config: RunConfig, data: Dataset, ids: SemanticIds, state: dict[str, Tensor]) -> GenerationGraph:
    """The serving form of a trained generator."""
    part = config.generator
    assert part is not None
    return GenerationGraph.from_checkpoint(
        state, config.generator_encoder, config.generator_tower, part.decoder, ids,
        generator_item_codes(config, data, ids), config.max_history, part.beam,
    )  # fmt: skip


def ranker_design(config: RunConfig) -> RankerDesign:
    part = config.ranker
    return RankerDesign(
        part.history, part.interaction, part.sharing, part.dim, tuple(config.tasks), frozenset(config.regression), part.dropout,
        part.tables, config.ranker_features,
    )  # fmt: skip


def ranker(config: RunConfig, data: Dataset) -> Ranker:
    """The training form, its tables still without memory. Raises InputError where `ranker.tables` names no table."""
    known = ["user", "item", *(f["name"] for f in data.features)]
    for name in config.ranker.tables:
        if name not in known:
            raise InputError(f"ranker.tables names {name!r}, which is no table: choose from {known}")
    scale = dense_scale(data, config.ranker_features) if config.ranker_features else None
    return Ranker(ranker_design(config), data.num_users, data.num_items, data.features, scale)


def dense_scale(data: Dataset, names: Sequence[str]) -> Scale:
    """Mean and standard deviation of point-in-time features over the training examples; 0 and 1 where there are none."""
    row_X = data.example_rows(TRAIN)
    if not len(row_X):
        return Scale(torch.zeros(len(names)), torch.ones(len(names)))
    mean, std = [], []
    for name in names:
        value_X = data.examples[feature(name)][row_X]
        mean.append(float(value_X.mean(dtype=np.float64)))
        std.append(float(value_X.std(dtype=np.float64)))
    return Scale(torch.tensor(mean), torch.tensor(std))


def ranking_graph(config: RunConfig, data: Dataset, state: dict[str, Tensor]) -> RankingGraph:
    """The serving form of a trained ranker."""
    codes = {f["name"]: data.codes(f["name"], f["owner"]) for f in data.features if f["owner"] != "context"}
    num_ids = {"user": data.num_users, "item": data.num_items, **{f["name"]: f["size"] for f in data.features}}
    return RankingGraph(state, ranker_design(config), data.features, codes, config.ranker_history, num_ids)
