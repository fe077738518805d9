"""A retriever as a policy: what training sees is what serving does."""

from typing import Any

import pytest
import torch
from planted_data import NUM_ITEMS, planted_config
from torch import Generator, Tensor, nn

from pipelines import models
from recsys.batch import Batch
from recsys.columns import FIRST_ID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.models.retriever import RetrievalGraph
from recsys.prompts import Histories, PromptLoader
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place
from recsys.train.policy_objective import settle
from recsys.train.proposing import excluded, served, with_target
from recsys.train.retriever_actor import RetrieverActor, Scores

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
SASREC = {"kind": "sasrec", "dim": 16, "blocks": 1, "heads": 2, "dropout": 0.5}
SETTINGS: dict[str, dict[str, Any]] = {
    "sasrec": {"retriever": {"encoder": SASREC}},
    "hstu": {"retriever": {"encoder": {"kind": "hstu", "dim": 16, "blocks": 1, "heads": 2}}},
    "mean_pooling": {"retriever": {"encoder": {"kind": "mean_pooling", "dim": 16}}},
    "cosine": {"retriever": {"encoder": SASREC, "similarity": {"kind": "cosine"}}},
    "narrow": {"retriever": {"encoder": SASREC, "matryoshka": {"dims": [8]}}, "serving": {"num_candidates": 20, "dim": 8}},
    "content": {
        "retriever": {"encoder": SASREC, "tower": {"features": ["tags"], "id_dropout": 0.5}},
        "data": {
            "events": {"path": "-", "user": "u", "item": "i"}, "items": {"path": "-", "id": "i", "features": {"tags": "t"}},
        },
    },
}  # fmt: skip


def acting(config: RunConfig, data: Dataset, device: torch.device) -> tuple[RetrieverActor, nn.Module, RetrievalGraph, Batch]:
    """A model as it begins, in both forms, and prompts with histories of every length."""
    torch.manual_seed(3)
    part = config.retriever
    model = place(models.retriever(config, data), device)
    settle(model)
    graph = models.retrieval_graph(config, data, model_state(model))
    histories = Histories(data, config.max_history, reads_time=part.encoder.reads_time)
    batch = next(PromptLoader(histories, 40, seed=2).epoch(0))
    return RetrieverActor(part.similarity, models.item_codes(config, data, device), config.serving.dim), model, graph, batch


@pytest.mark.parametrize("name", SETTINGS)
def test_probabilities_are_those_of_the_serving_graph(name: str, planted: Dataset, group: torch.device) -> None:
    actor, model, graph, batch = acting(planted_config(**SETTINGS[name]), planted, group)
    state = actor.state(model, model.embeddings(actor.look_ups(batch)), batch)
    item_BG = torch.arange(NUM_ITEMS).expand(batch.rows, -1)
    found_BGT = actor.log_probs(model, state, item_BG)
    history_BL, length_B, time_BM = served(batch)
    with torch.no_grad():
        torch.testing.assert_close(found_BGT, graph.log_probs(history_BL, length_B, item_BG, time_BM), atol=1e-5, rtol=1e-5)
        times = () if time_BM is None else (time_BM,)
        item_BK, _ = graph(history_BL, length_B, excluded(batch), *times)
    assert found_BGT.shape == (batch.rows, NUM_ITEMS, 1)
    assert not found_BGT[:, :FIRST_ID].any()
    torch.testing.assert_close(found_BGT[:, FIRST_ID:].exp().sum(1), torch.ones(batch.rows, 1))
    assert actor.best(model, state, excluded(batch), 20).tolist() == item_BK.tolist()
    assert found_BGT.requires_grad
    assert actor.summary(state).shape == (batch.rows, 16)


def test_histories_that_are_all_empty(planted: Dataset, group: torch.device) -> None:
    config = planted_config(**SETTINGS["hstu"])
    actor, model, graph, _ = acting(config, planted, group)
    user_B = torch.tensor([5, 6]).numpy()
    batch = PromptLoader(Histories(planted, 6, reads_time=True), 2, seed=1).batch(user_B, 0 * user_B)
    state = actor.state(model, model.embeddings(actor.look_ups(batch)), batch)
    item_BG = torch.tensor([[2, 7], [9, 3]])
    history_BL, length_B, time_BM = served(batch)
    expected = graph.log_probs(history_BL, length_B, item_BG, time_BM)
    torch.testing.assert_close(actor.log_probs(model, state, item_BG), expected)


def scores(score_BI: Tensor) -> Scores:
    reserved = torch.full((len(score_BI), FIRST_ID), -torch.inf)
    return Scores(torch.zeros(len(score_BI), 1), torch.cat([reserved, score_BI], dim=1))


ACTOR = RetrieverActor(lambda user, item: (user, item), None)  # type: ignore[arg-type]  # neither is asked


def test_samples_follow_the_softmax_of_what_is_not_excluded() -> None:
    share_I = torch.tensor([0.5, 0.3, 0.15, 0.05])
    state, exclude_BE = scores(share_I.log()[None]), torch.tensor([[0, 3]])
    item_BG = ACTOR.sample(nn.Identity(), state, exclude_BE, 20_000, Generator().manual_seed(1))
    counts = torch.bincount(item_BG[0], minlength=6) / item_BG.numel()
    assert counts[:2].tolist() == [0, 0]
    torch.testing.assert_close(counts[2:], torch.tensor([0.5, 0, 0.15, 0.05]) / 0.7, atol=0.01, rtol=0)
    again = ACTOR.sample(nn.Identity(), state, exclude_BE, 20_000, Generator().manual_seed(1))
    other = ACTOR.sample(nn.Identity(), state, exclude_BE, 20_000, Generator().manual_seed(2))
    assert torch.equal(item_BG, again)
    assert not torch.equal(item_BG, other)


def test_where_nothing_is_left_there_is_no_candidate() -> None:
    state, exclude_BE = scores(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])), torch.tensor([[2, 3, 4], [4, 0, 0]])
    assert ACTOR.best(nn.Identity(), state, exclude_BE, 7).tolist() == [[0] * 7, [3, 2, 0, 0, 0, 0, 0]]
    drawn = ACTOR.sample(nn.Identity(), state, exclude_BE, 50, Generator().manual_seed(1))
    assert drawn[0].tolist() == [0] * 50
    assert set(drawn[1].tolist()) == {2, 3}


def test_a_wide_gap_of_scores_is_no_trouble() -> None:
    state = scores(torch.tensor([[1e4, 0.0, -1e4]]))
    assert set(ACTOR.sample(nn.Identity(), state, torch.tensor([[0]]), 100, Generator().manual_seed(1))[0].tolist()) == {2}


def test_the_logged_item_takes_the_last_place_where_it_has_none() -> None:
    item_BG, target_B = torch.tensor([[5, 6, 7], [5, 6, 7]]), torch.tensor([6, 9])
    assert with_target(item_BG, target_B).tolist() == [[5, 6, 7], [5, 6, 9]]


def test_seen_items_are_excluded_but_for_the_logged_one(make_dataset: Any) -> None:
    data = make_dataset([[2, 3, 2, 4, 5]])
    loader = PromptLoader(Histories(data, 1), 1, seed=1)
    assert excluded(loader.batch(torch.tensor([2]).numpy(), torch.tensor([2]).numpy())).tolist() == [[0, 3]]  # 2 comes next
    none = PromptLoader(Histories(data, 1, seen=False), 1, seed=1).batch(torch.tensor([2]).numpy(), torch.tensor([2]).numpy())
    assert excluded(none).tolist() == [[0]]
