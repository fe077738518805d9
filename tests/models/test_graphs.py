"""The retriever's serving form against its training form. Shapes: B = requests, L = history, K = items returned."""

import numpy as np
import pytest
import torch

from recsys.batch import Ids
from recsys.columns import FIRST_ID
from recsys.dataset import Dataset
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.similarity import Cosine, Dot
from recsys.loader import SequenceLoader
from recsys.models.embeddings import SequenceEmbeddings, TableShape
from recsys.models.hstu import HSTU
from recsys.models.item_codes import ItemCodes
from recsys.models.item_tower import ItemTower
from recsys.models.mean_pooling import MeanPooling
from recsys.models.retriever import RetrievalGraph, Retriever
from recsys.models.sasrec import SASRec
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place, shard
from recsys.train.retrieval_objective import RetrievalLearner

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
DIM, HISTORY = 8, 4


def retrieval_graph(num_candidates: int = 6, num_items: int = 12) -> RetrievalGraph:
    torch.manual_seed(2)
    encoder = SASRec(dim=DIM, blocks=1, heads=1)
    return RetrievalGraph(encoder, HISTORY, torch.randn(num_items, DIM), num_candidates).eval()


@torch.no_grad()
def test_retrieval_graph_excludes_and_returns_best_first() -> None:
    graph = retrieval_graph()
    history_BL, length_B = torch.tensor([[4, 5], [7, 0]]), torch.tensor([2, 1])
    exclude_BE = torch.tensor([[4, 5, 11], [0, 0, 0]])
    item_BK, score_BK = graph(history_BL, length_B, exclude_BE)
    score_BI = graph.scores(history_BL, length_B)
    for row, excluded in enumerate([{4, 5, 11}, set()]):
        allowed = sorted(set(range(FIRST_ID, 12)) - excluded, key=lambda item: -score_BI[row, item].item())
        assert item_BK[row].tolist() == allowed[:6]
    assert (score_BK.diff(dim=1) <= 0).all()
    torch.testing.assert_close(score_BK, score_BI.gather(1, item_BK))


@torch.no_grad()
def test_retrieval_graph_marks_what_is_left_when_everything_is_excluded() -> None:
    graph = retrieval_graph(num_candidates=100)
    item_BK, score_BK = graph(torch.tensor([[4]]), torch.tensor([1]), torch.arange(3, 12)[None])
    assert item_BK.shape == (1, 10)  # every real item
    assert item_BK[0, 0] == 2
    assert torch.isfinite(score_BK).tolist() == [[True] + [False] * 9]


def make_codes(data: Dataset) -> ItemCodes:
    return ItemCodes.make(data.train_count_I, {}, torch.device("cpu"))


@pytest.mark.parametrize("spec", [SASRec(dim=DIM, blocks=2, heads=2), HSTU(dim=DIM, blocks=2, heads=2), MeanPooling(dim=DIM)])
@pytest.mark.parametrize("similarity", [Dot(), Cosine()])
def test_retriever_scores_equal_its_graph(
    spec: SASRec | HSTU | MeanPooling, similarity: Dot | Cosine, planted: Dataset, group: torch.device
) -> None:
    torch.manual_seed(3)
    codes = make_codes(planted)
    model = place(Retriever(spec, ItemTower(), planted.num_items, {}, HISTORY), group).eval()
    graph = RetrievalGraph.from_checkpoint(
        model_state(model), spec, ItemTower(), codes, HISTORY, 5,
        for_user=lambda v: similarity(v, v)[0], for_item=lambda v: similarity(v, v)[1],
    )  # fmt: skip
    history = Ids(torch.tensor([5, 6, 7, 8, 9]), torch.tensor([4, 0, 1]))
    time_BM = torch.tensor([[0, 50_000, 90_000, 95_000, 4_000_000], [7, 0, 0, 0, 0], [10_000, 80_000, 0, 0, 0]])
    time_M = torch.cat([time_BM[0], time_BM[1, :1], time_BM[2, :2]])
    item_ID = model.item_vectors(model.embeddings(codes.all()), codes.known_I)
    hidden_MD, item_ID = similarity(model(history, item_ID, time_M), item_ID)
    last_M = (history.length_B + 1).cumsum(0) - 1
    found = graph.scores(history.padded(), history.length_B, time_BM)[:, FIRST_ID:]
    torch.testing.assert_close(found, (hidden_MD[last_M] @ item_ID.T)[:, FIRST_ID:], atol=1e-4, rtol=1e-4)


def test_every_place_a_served_history_can_have_is_trained(planted: Dataset, group: torch.device) -> None:
    """Windows of `max_history` + 1 events: the last place of a full history predicts too."""
    codes = make_codes(planted)
    learner = RetrievalLearner(FullSoftmax(), Dot(), codes)
    model = place(Retriever(SASRec(dim=DIM, blocks=1, heads=1), ItemTower(), planted.num_items, {}, HISTORY), group)
    for batch in SequenceLoader(planted, HISTORY, 64, seed=1).epoch(0):
        drawn = learner.draw(batch, torch.Generator())
        found = {name: vector.detach() for name, vector in model.embeddings(drawn.ids).items()}
        learner.losses(model, found, batch, drawn, learner.counts(batch), 0).loss_T.sum().backward()
    place_PD = model.encoder.place
    assert place_PD.grad is not None
    assert (place_PD.grad != 0).any(dim=1).all()


def test_embeddings_keep_the_order_of_ids(group: torch.device) -> None:
    tables = [TableShape("item", 20, 4, ("a", "b"))]
    model = shard(SequenceEmbeddings(tables, init_std=1.0), group, optimizer="sgd", learning_rate=0.1)
    table_ID = model.state_dict()["collection.embeddings.item.weight"].local_shards()[0].tensor
    a, b = Ids(torch.tensor([3, 1, 3, 19]), torch.tensor([3, 0, 1])), Ids(torch.tensor([7, 2]), torch.tensor([0, 2, 0]))
    found = model({"a": a, "b": b})
    np.testing.assert_array_equal(found["a"].detach().numpy(), table_ID[a.value_N].numpy())
    np.testing.assert_array_equal(found["b"].detach().numpy(), table_ID[b.value_N].numpy())
