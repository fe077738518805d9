"""Items from their own rows and from their content. Shapes: I = rows of the item table, C = items, D = width."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted_data import planted_config, write_dataset
from safetensors.torch import load_file

from pipelines import models
from pipelines.train import train_retriever
from recsys import evaluate
from recsys.batch import Ids
from recsys.columns import FIRST_ID, TEST, TRAIN
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.jagged import Jagged
from recsys.models.item_codes import ITEM, ItemCodes
from recsys.models.item_tower import ItemTower
from recsys.models.retriever import CONTENT_TABLE, ITEM_TABLE, item_vectors
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
BOTH = {"features": ["genre", "tags"]}
GENRES, PER_GENRE, COLD = 6, 8, 12  # two items of each genre are in no training event


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def retriever_config(fit: dict[str, Any], **change: Any) -> RunConfig:
    config = planted_config(fit)
    return config.model_copy(
        update={"retriever": type(config.retriever).model_validate(config.retriever.model_dump() | change)}
    )


def test_vectors_by_hand() -> None:
    """Items 2 to 4: known with tags 1 and 2, unknown to training with tag 2, known without tags."""
    codes = ItemCodes.make(
        np.array([0, 0, 3, 0, 1]), {"tags": Jagged(np.array([1, 2, 2]), np.array([0, 0, 0, 2, 3, 3]))}, torch.device("cpu")
    )
    own_ID = torch.tensor([[9.0, 9.0], [9.0, 9.0], [1.0, 0.0], [5.0, 5.0], [0.0, 1.0]])
    table = torch.tensor([[0.0, 0.0], [10.0, 20.0], [30.0, 60.0]])
    state = {ITEM_TABLE: own_ID, CONTENT_TABLE.format("tags"): table}
    found = item_vectors(state, ItemTower(features=("tags",)), codes)
    assert found.tolist() == [[0, 0], [0, 0], [21, 40], [30, 60], [0, 1]]
    alone = item_vectors(state, ItemTower(), codes)
    assert torch.equal(alone, own_ID), "without content an item shows its own row, trained or not"


def test_codes_of_some_items() -> None:
    codes = ItemCodes.make(np.ones(4), {"tags": Jagged(np.array([7, 8, 9, 5]), np.array([0, 2, 2, 3, 4]))}, torch.device("cpu"))
    found = codes.of(torch.tensor([3, 0, 1, 0]))
    assert (found["tags"].value_N.tolist(), found["tags"].length_B.tolist()) == ([5, 7, 8, 7, 8], [1, 2, 0, 2])
    assert (found[ITEM].value_N.tolist(), found[ITEM].length_B.tolist()) == ([3, 0, 1, 0], [1, 1, 1, 1])
    nothing = codes.of(torch.tensor([1]))["tags"]
    assert (nothing.value_N.tolist(), nothing.length_B.tolist()) == ([], [0])


def test_id_dropout_hides_its_share_of_rows_in_training_only() -> None:
    tower = ItemTower(features=("genre",), id_dropout=0.3).build()
    found = {ITEM: torch.ones(10_000, 1), "genre": torch.full((10_000, 1), 10.0)}
    known_C = torch.arange(10_000) % 2 == 0
    torch.manual_seed(0)
    trained = tower(found, known_C).squeeze(1)
    assert set(trained[~known_C].tolist()) == {10}
    assert set(trained[known_C].tolist()) == {10, 11}
    assert (trained[known_C] == 10).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(tower.eval()(found, known_C).squeeze(1), 10.0 + known_C)


@pytest.mark.parametrize("tower", [{}, {"features": ["genre"]}, {**BOTH, "id_dropout": 0.5}], ids=str)
def test_vectors_of_a_checkpoint_equal_those_of_the_trained_model(
    tower: dict[str, Any], planted: Dataset, group: torch.device
) -> None:
    config = retriever_config({}, tower=tower)
    model = place(models.retriever(config, planted), group, learning_rate=0.1).eval()
    codes = models.item_codes(config, planted)
    assert not codes.known_I.all()
    trained = model.item_vectors(model.embeddings(codes.all()), codes.known_I).detach()
    torch.testing.assert_close(item_vectors(model_state(model), config.retriever.tower, codes), trained)
    item_C = torch.tensor([40, 3, 17])
    some = model.item_vectors(model.embeddings(codes.of(item_C)), codes.is_known(item_C)).detach()
    torch.testing.assert_close(some, trained[item_C])


def test_items_that_came_after_training_are_their_content(planted: Dataset, group: torch.device) -> None:
    config = retriever_config({}, tower={"features": ["genre"]})
    model = place(models.retriever(config, planted), group, learning_rate=0.1).eval()
    state, codes = model_state(model), models.item_codes(config, planted)
    genre = codes.features["genre"]
    larger = ItemCodes(
        torch.cat([codes.known_I, torch.zeros(1, dtype=torch.bool)]),
        {"genre": Ids(torch.cat([genre.value_N, torch.tensor([3])]), torch.cat([genre.length_B, torch.tensor([1])]))},
    )
    found = item_vectors(state, config.retriever.tower, larger)
    torch.testing.assert_close(found[-1], state[CONTENT_TABLE.format("genre")][3])
    torch.testing.assert_close(found[:-1], item_vectors(state, config.retriever.tower, codes))


@pytest.fixture(scope="module")
def genres(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users stay in one genre; which item of it comes next is a coin. The last items of each genre have no training event but
    are what the users of the genre choose in the end."""
    rng = np.random.default_rng(0)
    items = np.arange(GENRES * PER_GENRE) + FIRST_ID
    genre_I = (items - FIRST_ID) % GENRES
    warm = len(items) - COLD
    timelines, splits = [], []
    for user in range(180):
        genre = user % GENRES
        liked = rng.permutation(items[:warm][genre_I[:warm] == genre])[:5].tolist()
        timelines.append([*liked, int(rng.choice(items[warm:][genre_I[warm:] == genre]))])
        splits.append([TRAIN] * 4 + [TRAIN + 1, TEST])
    codes = [1, 1, *(genre_I + FIRST_ID).tolist()]
    several = [[1], [1], *([int(code) + FIRST_ID, int(rng.integers(8, 12))] for code in genre_I)]
    return write_dataset(
        tmp_path_factory.mktemp("genres") / "dataset", timelines, num_items=len(items) + FIRST_ID, splits=splits,
        features={"genre": ("item", codes), "tags": ("item", several)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "least"),
    [
        ({"tower": {"features": ["genre"], "id_dropout": 0.5}}, 0.9),
        ({"tower": {"features": ["tags"], "id_dropout": 0.5}}, 0.7),  # two values, one of them noise
        (
            {
                "tower": {"features": ["genre"], "id_dropout": 0.5},
                "loss": {"kind": "sampled_softmax"},
                "negatives": {"kind": "uniform", "count": 64},
            },
            0.9,
        ),
    ],
    ids=["one value", "several values", "sampled loss"],
)
def test_a_new_item_is_recommended_for_its_content(
    change: dict[str, Any], least: float, genres: Dataset, group: torch.device, tmp_path: Path
) -> None:
    assert genres.cold_items.sum() == COLD
    assert hit_rate(genres, group, tmp_path / "model", change) > least


def test_without_content_a_new_item_is_not_found(genres: Dataset, group: torch.device, tmp_path: Path) -> None:
    assert hit_rate(genres, group, tmp_path / "model", {}) < 0.5


def hit_rate(data: Dataset, device: torch.device, out: Path, change: dict[str, Any]) -> float:
    """Of the 3 items of the genre that a user has not had, 2 are new; 5 places hold all, where the model knows the genre."""
    config = retriever_config({"epochs": 8, "batch_size": 16, "evaluate_every": 8}, **change)
    train_retriever(config, data, out, device=device, progress=Silent())
    graph = models.retrieval_graph(config, data, load_file(out / MODEL_FILE))
    judged = evaluate.judged_users(data, TEST, filter_seen=True)
    item_UK = evaluate.recommend(graph, judged, k=5, max_history=config.max_history, filter_seen=True)
    return evaluate.retrieval_metrics(item_UK, judged, [5], data.num_items)[0]["HR@5"]
