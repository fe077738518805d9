"""Hard negatives in training: what the config refuses, what a step does, and a world in which the guard decides."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from planted_data import NUM_ITEMS, planted_config, write_dataset
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Generator, Tensor
from training_runs import Recorder

from pipelines import models
from pipelines.train import train_retriever
from recsys import evaluate
from recsys.columns import FIRST_ID, TEST
from recsys.config import RetrieverConfig, RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.heads.similarity import Cosine, Dot
from recsys.loader import SequenceLoader
from recsys.models.retriever import Retriever
from recsys.sample import Catalogue, Dynamic, HardNegatives, InBatch, Mixed, Uniform, exposure
from recsys.train.distributed import place
from recsys.train.job import Outcome
from recsys.train.loop import MODEL_FILE
from recsys.train.retrieval_objective import RetrievalLearner

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
MEMBERS = get_args(get_args(HardNegatives)[0])
HARD: list[dict[str, Any]] = [
    {"kind": "dynamic", "count": 8}, {"kind": "stable", "best": 8, "count": 32, "targets": 32}, {"kind": "coupled", "count": 8},
]  # fmt: skip
CATALOGUE = {"kind": "catalogue"}


def with_retriever(config: RunConfig, **change: Any) -> RunConfig:
    part = RetrieverConfig.model_validate(config.retriever.model_dump() | change)
    return config.model_copy(update={"retriever": part})


def test_every_kind_is_trained_here() -> None:
    assert {each["kind"] for each in HARD} == {member().kind for member in MEMBERS}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hard": {"kind": "dynamic"}}, "of which loss full_softmax has none: take a sampled loss, such as bpr"),
        ({"hard": {"kind": "stable"}, "loss": {"kind": "gbce"}}, "not what loss gbce reads: take bpr"),
        ({"hard": {"kind": "coupled"}, "loss": {"kind": "sampled_softmax"}}, "not what loss sampled_softmax reads: take bpr"),
        (
            {"hard": {"kind": "coupled"}, "loss": {"kind": "bpr"}, "matryoshka": {"dims": [8]}},
            "reads vectors of one width only: take matryoshka out",
        ),
        (
            {"hard": {"kind": "dynamic", "skip": 10}, "loss": {"kind": "bpr"}, "negatives": {"kind": "uniform", "count": 110}},
            "among the best 110 of each row, and there are only 110 negatives to choose from: raise their count",
        ),
        ({"hard": {"kind": "dynamic", "count": 1024}, "loss": {"kind": "bpr"}}, "only 1024 negatives"),  # those of `mixed`
        ({"hard": {"kind": "dynamic", "count": 0}, "loss": {"kind": "bpr"}}, "greater than or equal to 1"),
        ({"hard": {"kind": "coupled", "clip": 0.5}, "loss": {"kind": "bpr"}}, "greater than or equal to 1"),
        ({"hard": {"kind": "hardest"}, "loss": {"kind": "bpr"}}, "'dynamic', 'stable', 'coupled'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        RetrieverConfig.model_validate(settings)


@pytest.mark.parametrize("hard", HARD, ids=lambda hard: hard["kind"])
def test_what_fits_is_taken(hard: dict[str, Any]) -> None:
    for loss in ("bpr", "lambda_pairs"):
        for negatives in (CATALOGUE, {"kind": "in_batch"}, {"kind": "mixed"}, None):
            assert RetrieverConfig.model_validate({"hard": hard, "loss": {"kind": loss}, "negatives": negatives}).hard


def test_how_many_negatives_there_will_be() -> None:
    assert Uniform(count=7).drawn == 7
    assert Mixed(parts=(Uniform(count=7), Uniform(count=5))).drawn == 12
    for spec in (InBatch(), Catalogue(), Mixed(parts=(Uniform(count=7), InBatch()))):
        assert spec.drawn is None


def test_more_than_the_catalogue_holds_is_refused(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config = with_retriever(
        planted_config(), loss={"kind": "bpr"}, negatives=CATALOGUE, hard={"kind": "dynamic", "count": NUM_ITEMS - FIRST_ID}
    )
    with pytest.raises(
        InputError, match=r"retriever.hard dynamic chooses among the best 48 of each row, and .* has only 48 items"
    ):
        train_retriever(config, planted, tmp_path / "retriever", device=group, progress=Recorder())


class Bench:
    """A placed model and one batch."""

    def __init__(self, data: Dataset, device: torch.device, **change: Any):
        self.config = with_retriever(planted_config(), **{"negatives": CATALOGUE, "loss": {"kind": "bpr"}} | change)
        part = self.config.retriever
        torch.manual_seed(0)
        self.model = place(Retriever(part.encoder, part.tower, data.num_items, {}, self.config.max_history), device).eval()
        self.hard = part.hard.build(part.encoder.dim, torch.from_numpy(exposure(data))) if part.hard else None
        self.learner = RetrievalLearner(
            part.loss, part.similarity, models.item_codes(self.config, data, device), part.matryoshka,
            part.negatives.build(torch.from_numpy(data.train_count_I.copy())), hard=self.hard,
        )  # fmt: skip
        self.batch = next(iter(SequenceLoader(data, self.config.max_history, 24, seed=1).epoch(0)))

    def step(self, parts: int = 1, seed: int = 7) -> tuple[list[Outcome], dict[str, Tensor]]:
        drawn = self.learner.draw(self.batch, Generator().manual_seed(seed))
        found = {name: vector.detach().requires_grad_() for name, vector in self.model.embeddings(drawn.ids).items()}
        count_T, sizes = self.learner.counts(self.batch), [self.batch.rows // parts] * parts
        outcomes = [
            self.learner.losses(self.model, leaf, rows, drawn, count_T, 0)
            for leaf, rows in self.learner.parts(self.model, found, self.batch, sizes)
        ]
        sum(each.loss_T.sum() for each in outcomes).backward()
        return outcomes, found


@pytest.mark.parametrize("similarity", [Dot(), Cosine()], ids=lambda each: each.kind)
@pytest.mark.parametrize("hard", HARD, ids=lambda hard: hard["kind"])
def test_the_same_seed_gives_the_same_step(
    hard: dict[str, Any], similarity: Any, planted: Dataset, group: torch.device
) -> None:
    def run(seed: int) -> list[Tensor]:
        torch.manual_seed(99)
        bench = Bench(planted, group, hard=hard, similarity=similarity.model_dump(), negatives={"kind": "uniform", "count": 30})
        (outcome,), found = bench.step(seed=seed)
        return [outcome.loss_T.detach(), found["item"].grad, *([] if outcome.own is None else [outcome.own.detach()])]

    first, again, other = run(7), run(7), run(8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("hard", [HARD[0], HARD[2]], ids=lambda hard: hard["kind"])
def test_parts_of_a_batch_add_up(hard: dict[str, Any], planted: Dataset, group: torch.device) -> None:
    """`stable` shares what its rows give, so there a part is a batch of its own."""
    found = []
    for parts in (1, 3):
        bench = Bench(planted, group, hard=hard)
        outcomes, leaf = bench.step(parts)
        own = [each.own for each in outcomes if each.own is not None]
        if own:
            sum(own).backward()
        helpers = list(bench.hard.parameters()) if isinstance(bench.hard, torch.nn.Module) else []
        found.append([leaf["item"].grad, *(p.grad for p in helpers)])
    for whole, summed in zip(*found, strict=True):
        torch.testing.assert_close(whole, summed, atol=1e-6, rtol=1e-4)


def test_frozen_items_get_no_gradient_and_the_encoder_does(planted: Dataset, group: torch.device) -> None:
    for frozen in (False, True):
        bench = Bench(planted, group, hard={"kind": "dynamic", "count": 8, "freeze_items": frozen})
        _, found = bench.step()
        assert (found["item"].grad is None) == frozen
        assert any(p.grad is not None and (p.grad != 0).any() for p in bench.model.encoder.parameters())


def test_widths_choose_for_themselves(planted: Dataset, group: torch.device) -> None:
    whole = Bench(planted, group, hard=HARD[0]).step()[0][0].loss_T.item()
    both = Bench(planted, group, hard=HARD[0], matryoshka={"dims": [4]}).step()[0][0].loss_T.item()
    assert both > whole


def test_without_hard_nothing_has_changed(planted: Dataset, group: torch.device) -> None:
    """A repeated item of the sample stays repeated, and no random number is drawn for a choice that nobody makes."""
    bench = Bench(planted, group, negatives={"kind": "uniform", "count": 200})
    candidates = bench.learner.draw(bench.batch, Generator().manual_seed(7)).extra
    assert len(candidates.negatives.item_S) == 200
    assert candidates.seed == 0
    hard = Bench(planted, group, negatives={"kind": "uniform", "count": 200}, hard=HARD[0])
    drawn = hard.learner.draw(hard.batch, Generator().manual_seed(7)).extra.negatives
    assert drawn.item_S.tolist() == sorted(set(candidates.negatives.item_S.tolist()))


def train(config: RunConfig, data: Dataset, out: Path, device: torch.device, **options: Any) -> dict[str, Tensor]:
    train_retriever(config, data, out, device=device, progress=Recorder(), **options)
    return load_file(out / MODEL_FILE) if (out / MODEL_FILE).exists() else {}


def ndcg(config: RunConfig, data: Dataset, state: dict[str, Tensor], *, filter_seen: bool) -> float:
    judged = evaluate.judged_users(data, TEST, filter_seen=filter_seen)
    graph = models.retrieval_graph(config, data, state)
    item_UK = evaluate.recommend(graph, judged, k=10, max_history=config.max_history, filter_seen=filter_seen)
    return evaluate.retrieval_metrics(item_UK, judged, [10], data.num_items)[0]["NDCG@10"]


@pytest.mark.parametrize("hard", HARD, ids=lambda hard: hard["kind"])
def test_the_retriever_learns_and_a_stopped_run_goes_on_bit_for_bit(
    hard: dict[str, Any], planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    fit = {"epochs": 8, "batch_size": 16, "patience": 60}
    config = with_retriever(planted_config(fit), loss={"kind": "bpr"}, negatives=CATALOGUE, hard=hard)
    whole = train(config, planted, tmp_path / "whole", group)
    train(config, planted, tmp_path / "parts", group, stop_after_steps=23)
    parts = train(config, planted, tmp_path / "parts", group)
    assert whole
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    assert ndcg(config, planted, whole, filter_seen=True) > 0.6  # chance: 0.1


def test_guarding_known_positives_helps_where_tastes_are_played_again(group: torch.device, tmp_path: Path) -> None:
    """Users play five favourites in any order, so the hardest negatives of an unguarded row are its other favourites."""
    rng, items = np.random.default_rng(1), 192
    timelines = [rng.choice(rng.choice(items, 5, replace=False) + FIRST_ID, 24).tolist() for _ in range(240)]
    data = write_dataset(tmp_path / "dataset", timelines, num_items=items + FIRST_ID)
    found: dict[bool, list[float]] = {True: [], False: []}
    for guard, results in found.items():
        for seed in (1, 2):
            config = with_retriever(
                planted_config(
                    {"epochs": 12, "batch_size": 32, "keep": "last", "warmup_steps": 5},
                    max_history=24, evaluation={"ks": [5, 10], "filter_seen": False}, seed=seed,
                ),
                encoder={"kind": "mean_pooling", "dim": 16}, loss={"kind": "bpr"}, negatives=CATALOGUE,
                hard=Dynamic(count=4, guard=guard).model_dump(),
            )  # fmt: skip
            state = train(config, data, tmp_path / f"{guard}-{seed}", group)
            results.append(ndcg(config, data, state, filter_seen=False))
    assert all(with_guard > without for with_guard, without in zip(found[True], found[False], strict=True)), found
