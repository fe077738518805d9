"""The serving forms against the training forms. Shapes: B = requests, L = history, C = candidates, K = items returned."""

import numpy as np
import pytest
import torch

from recsys.batch import Ids
from recsys.columns import FIRST_ID, TRAIN
from recsys.dataset import Dataset
from recsys.loader import ExampleLoader
from recsys.models.embeddings import SequenceEmbeddings, TableShape
from recsys.models.mmoe import MMoE
from recsys.models.ranker import Ranker, RankingGraph
from recsys.models.retriever import RetrievalGraph, Retriever
from recsys.models.sasrec import SASRec
from recsys.models.shared_bottom import SharedBottom
from recsys.train.checkpoint import model_state
from recsys.train.distributed import shard
from recsys.train.objective import ranking_objective, retrieval_objective

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
TASKS, DIM, HISTORY = ["click", "like"], 8, 4


def ranking_pair(data: Dataset, device: torch.device, sharing: MMoE | SharedBottom) -> tuple[Ranker, RankingGraph]:
    torch.manual_seed(1)
    ranker = Ranker(sharing, data.num_users, data.num_items, data.features, DIM, len(TASKS), dropout=0.3)
    model = shard(ranker, device, embedding_lr=0.1).eval()
    codes = {f["name"]: data.codes(f["name"], f["owner"]) for f in data.features if f["owner"] != "context"}
    return model, RankingGraph(model_state(model), sharing, data.features, codes, DIM, len(TASKS), HISTORY)


@pytest.mark.parametrize("sharing", [MMoE(experts=3, hidden=6), SharedBottom(hidden=6)])
def test_ranking_graph_equals_ranker(planted: Dataset, group: torch.device, sharing: MMoE | SharedBottom) -> None:
    model, graph = ranking_pair(planted, group, sharing)
    loader = ExampleLoader(planted, tasks=TASKS, split=TRAIN, max_history=HISTORY, batch_size=256, seed=1)
    lengths = set()
    for batch in loader.in_order():
        ids = batch.ids
        expected_BT = model(ids).sigmoid()
        history = ids["history"]
        context_BF = ids["hour"].value_N[:, None]
        found_BCT = graph(ids["user"].value_N, history.padded(), history.length_B, ids["item"].value_N[:, None], context_BF)
        torch.testing.assert_close(found_BCT[:, 0], expected_BT, atol=1e-6, rtol=1e-5)
        lengths |= set(history.length_B.tolist())
    assert {0, 1, HISTORY} <= lengths


def test_ranking_graph_reads_the_most_recent_events_only(planted: Dataset, group: torch.device) -> None:
    _, graph = ranking_pair(planted, group, MMoE(experts=2, hidden=4))
    user_B, item_BC, context_BF = torch.tensor([3]), torch.tensor([[5, 9]]), torch.tensor([[2]])
    recent = [7, 8, 9, 10]
    assert len(recent) == HISTORY

    def score(history: list[int], length: int) -> torch.Tensor:
        return graph(user_B, torch.tensor([history]), torch.tensor([length]), item_BC, context_BF)

    expected_BCT = score(recent, 4)
    torch.testing.assert_close(score([30, 31, *recent], 6), expected_BCT)  # older events do not count
    torch.testing.assert_close(score([*recent, 40, 41], 4), expected_BCT)  # nor does what lies in the padding
    assert not torch.allclose(score([*recent, 40], 5), expected_BCT)


def test_ranking_graph_candidates_are_independent_and_unknown_context_is_no_error(
    planted: Dataset, group: torch.device
) -> None:
    _, graph = ranking_pair(planted, group, MMoE(experts=2, hidden=4))
    user_B, history_BL, length_B = torch.tensor([3, 4]), torch.tensor([[7, 8], [9, 0]]), torch.tensor([2, 1])
    item_BC = torch.tensor([[5, 9, 11], [2, 3, 4]])
    together_BCT = graph(user_B, history_BL, length_B, item_BC, torch.tensor([[2], [1]]))
    for c in range(3):
        alone = graph(user_B, history_BL, length_B, item_BC[:, c : c + 1], torch.tensor([[2], [1]]))
        torch.testing.assert_close(alone[:, 0], together_BCT[:, c])
    unseen = graph(user_B, history_BL, length_B, item_BC, torch.tensor([[999], [-5]]))
    unknown = graph(user_B, history_BL, length_B, item_BC, torch.tensor([[1], [1]]))
    torch.testing.assert_close(unseen, unknown)


def test_training_moves_every_table_of_the_ranker(planted: Dataset, group: torch.device) -> None:
    model, _ = ranking_pair(planted, group, MMoE(experts=2, hidden=4))
    before = model_state(model)
    model.train()
    for batch in ExampleLoader(planted, tasks=TASKS, split=TRAIN, max_history=HISTORY, batch_size=256, seed=1).epoch(0):
        ranking_objective(model, batch, 0, task_weights=dict.fromkeys(TASKS, 1.0), denoise=None)[0].backward()
    after = model_state(model)
    tables = [name for name in before if ".collection." in name]
    assert len(tables) == 7
    for name in tables:
        assert (after[name][FIRST_ID:] != before[name][FIRST_ID:]).any(), f"{name} was not trained"


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


def test_retriever_scores_equal_its_graph(planted: Dataset, group: torch.device) -> None:
    torch.manual_seed(3)
    spec = SASRec(dim=DIM, blocks=2, heads=2)
    model = shard(Retriever(spec, planted.num_items, HISTORY), group, embedding_lr=0.1).eval()
    graph = RetrievalGraph.from_checkpoint(model_state(model), spec, HISTORY, 5)
    history = Ids(torch.tensor([5, 6, 7, 8, 9]), torch.tensor([4, 0, 1]))
    hidden_MD, item_ID = model(history, torch.arange(planted.num_items))
    last_M = (history.length_B + 1).cumsum(0) - 1
    found = graph.scores(history.padded(), history.length_B)[:, FIRST_ID:]
    torch.testing.assert_close(found, (hidden_MD[last_M] @ item_ID.T)[:, FIRST_ID:], atol=1e-5, rtol=1e-5)


def test_every_place_a_served_history_can_have_is_trained(planted: Dataset, group: torch.device) -> None:
    """Windows of `max_history` + 1 events: the last place of a full history predicts too."""
    from recsys.heads.full_softmax import FullSoftmax
    from recsys.loader import SequenceLoader

    model = shard(Retriever(SASRec(dim=DIM, blocks=1, heads=1), planted.num_items, HISTORY), group, embedding_lr=0.1)
    generator, count_I = torch.Generator(), torch.from_numpy(planted.train_count_I.copy())
    for batch in SequenceLoader(planted, HISTORY, 64, seed=1).epoch(0):
        retrieval_objective(model, batch, 0, loss=FullSoftmax(), denoise=None, train_count_I=count_I, generator=generator)[
            0
        ].backward()
    place = next(parameter for name, parameter in model.named_parameters() if name.endswith("encoder.place"))
    assert place.grad is not None
    assert (place.grad != 0).any(dim=1).all()


def test_embeddings_keep_the_order_of_ids(group: torch.device) -> None:
    tables = [TableShape("item", 20, 4, ("a", "b"))]
    model = shard(SequenceEmbeddings(tables, init_std=1.0), group, embedding_lr=0.1)
    table_ID = model_state(model)["collection.embeddings.item.weight"]
    a, b = Ids(torch.tensor([3, 1, 3, 19]), torch.tensor([3, 0, 1])), Ids(torch.tensor([7, 2]), torch.tensor([0, 2, 0]))
    found = model({"a": a, "b": b})
    np.testing.assert_array_equal(found["a"].detach().numpy(), table_ID[a.value_N].numpy())
    np.testing.assert_array_equal(found["b"].detach().numpy(), table_ID[b.value_N].numpy())
