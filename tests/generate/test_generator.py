"""The generator's training and serving forms are one model, and it learns what was planted.

Shapes: B = users, L = history, N = history items of all users, M = tokens, K = items returned.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generator_cases import ids_of, random_ids
from planted_data import BLOCK_ITEMS, BLOCKS, planted_config
from safetensors.torch import load_file

from pipelines import models
from pipelines.train import generator_job
from recsys import evaluate
from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID, TEST
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.generate.generator import CODES, generator_codes
from recsys.generate.ids import SemanticIds
from recsys.jagged import Jagged
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place
from recsys.train.generation_objective import GenerationLearner
from recsys.train.loop import MODEL_FILE, fit

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
FIT = {
    "batch_size": 16,
    "epochs": 20,
    "patience": 60,
    "warmup_steps": 10,
    "embedding_learning_rate": 0.1,
    "learning_rate": 0.005,
}
SMALL = {"kind": "sasrec", "dim": 16, "blocks": 1, "heads": 2, "dropout": 0.1}


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def generator_config(**change: Any) -> RunConfig:
    data = {
        "events": {"path": "-", "user": "u", "item": "i"},
        "items": {"path": "-", "id": "i", "features": {"genre": "g", "tags": "t"}},
    }
    return planted_config(data=data, generator={"begin": "random", "encoder": SMALL, "fit": FIT, "beam": 20, **change})


def block_ids() -> SemanticIds:
    """The block, then the place in it: what content would give."""
    return ids_of([(block, place // 4, place % 4) for block in range(BLOCKS) for place in range(BLOCK_ITEMS)])


def test_an_items_codes_are_features_of_one_table() -> None:
    ids = ids_of([[0, 2], [1, 0]], sizes=(2, 3))
    features = {"genre": Jagged(np.array([1, 1, 2, 3]), np.arange(5))}
    for own_row, known in ((True, [False, False, True, False]), (False, [False] * 4)):
        codes = generator_codes(ids, np.array([0, 0, 5, 0]), features, own_row=own_row, device=torch.device("cpu"))
        assert codes.known_I.tolist() == known  # an item that training lacks is its codes alone
        assert codes.features[CODES].value_N.tolist() == [0, 4, 1, 2]
        assert codes.features[CODES].length_B.tolist() == [0, 0, 2, 2]
        assert list(codes.features) == ["genre", CODES]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"own_row": False},
        {"encoder": {"kind": "hstu", "dim": 16, "blocks": 1, "heads": 2}},
        {"tower": {"features": ["genre", "tags"]}},
    ],
    ids=str,
)
def test_the_jagged_training_path_is_the_padded_serving_path(
    planted: Dataset, group: torch.device, change: dict[str, Any]
) -> None:
    config, ids = generator_config(**change), random_ids((5, 5, 4), planted.num_items - FIRST_ID, seed=1)
    torch.manual_seed(0)
    model = place(models.generator(config, planted, ids), group).eval()
    graph = models.generation_graph(config, planted, ids, model_state(model))
    codes = models.generator_item_codes(config, planted, ids)
    lengths, rng = [0, 1, 6, 3, 0], np.random.default_rng(0)
    history = Jagged(rng.integers(FIRST_ID, planted.num_items, sum(lengths)), np.cumsum([0, *lengths]))
    history_BL, length_B = evaluate.padded(history)
    time_BM = torch.arange(len(lengths) * 7).view(-1, 7) * 86_400_000
    with torch.no_grad():
        item_ID = model.item_vectors(model.embeddings(codes.all()), codes.known_I)
        inside_BM = torch.arange(7) <= length_B[:, None]
        hidden_MD = model(Ids(torch.from_numpy(history.item_E), length_B), item_ID, time_BM[inside_BM])
        hidden_BD = hidden_MD[(length_B + 1).cumsum(0) - 1]
        torch.testing.assert_close(graph.hidden(history_BL, length_B, time_BM), hidden_BD, atol=1e-5, rtol=1e-5)
        item_BG = torch.from_numpy(rng.integers(0, planted.num_items, (len(lengths), 6)))
        log_prob_BGT = model.decoder.log_probs(model.trie, hidden_BD.unsqueeze(1).expand(-1, 6, -1), item_BG)
        served_BGT = graph.log_probs(history_BL, length_B, item_BG, time_BM)
    known_BG = item_BG >= FIRST_ID
    assert (~known_BG).any(), "the draw holds a reserved id"
    torch.testing.assert_close(served_BGT[known_BG], log_prob_BGT[known_BG], atol=1e-5, rtol=1e-5)
    assert (served_BGT[~known_BG] == 0).all()


def test_the_loss_of_a_window_is_what_its_items_cost_after_what_was_before(planted: Dataset, group: torch.device) -> None:
    """Windows of 3 and 1 events: four predictions, each of them asked of the serving form, which cannot look ahead."""
    config, ids = generator_config(), block_ids()
    torch.manual_seed(0)
    model = place(models.generator(config, planted, ids), group).eval()
    graph = models.generation_graph(config, planted, ids, model_state(model))
    codes = models.generator_item_codes(config, planted, ids)
    learner, window_N = GenerationLearner(codes), torch.tensor([5, 9, 5, 30])
    batch = Batch({"history": Ids(window_N, torch.tensor([3, 1]))}, time_N=torch.arange(4))
    drawn = learner.draw(batch, torch.Generator())
    with torch.no_grad():
        found = model.embeddings(drawn.ids)
        outcome = learner.losses(model, found, batch, drawn, learner.counts(batch), 0)
        history_BL = torch.tensor([[0, 0], [5, 0], [5, 9], [0, 0]])
        log_prob_B1T = graph.log_probs(history_BL, torch.tensor([0, 1, 2, 0]), window_N.unsqueeze(1))
    torch.testing.assert_close(outcome.loss_T, -log_prob_B1T.sum().unsqueeze(0) / 4, atol=1e-5, rtol=1e-5)
    by_code = [outcome.terms[f"loss_of_code/{level}"] for level in range(3)]
    torch.testing.assert_close(torch.stack(by_code), -log_prob_B1T[:, 0].mean(0), atol=1e-5, rtol=1e-5)


def learned(config: RunConfig, data: Dataset, ids: SemanticIds, group: torch.device, out: Path) -> float:
    """NDCG@10 on the test split after `fit`."""
    fit(
        generator_job(config, data, ids, group), config.generator.fit, seed=1, device=group, out=out,
        identity={"part": "generator"}, progress=Silent(),
    )  # fmt: skip
    judged = evaluate.judged_users(data, TEST, filter_seen=True)
    graph = models.generation_graph(config, data, ids, load_file(out / MODEL_FILE))
    item_UK = evaluate.recommend(graph, judged, k=10, max_history=config.max_history, filter_seen=True)
    return evaluate.retrieval_metrics(item_UK, judged, [10], data.num_items)[0]["NDCG@10"]


@pytest.mark.parametrize(
    "change",
    [{}, {"own_row": False, "decoder": {"softmax": "all"}}, {"encoder": {**SMALL, "kind": "hstu"}}],
    ids=str,
)
def test_the_generator_learns_the_next_item(
    planted: Dataset, group: torch.device, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Users walk through their block, so that the next item is certain; popularity and chance know nothing of it."""
    assert learned(generator_config(**change), planted, block_ids(), group, tmp_path / "generator") > 0.8
