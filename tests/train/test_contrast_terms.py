"""Views and pairs as terms of the retriever's loss: what they read, what they must not, and that every encoder and loss bears
them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_data import BLOCK_ITEMS, NUM_ITEMS, planted_config
from pydantic import ValidationError
from torch import Generator, Tensor, nn
from training_runs import Recorder

from pipelines import models
from pipelines.terms import contrast_terms
from pipelines.train import train_retriever
from recsys.batch import Batch
from recsys.columns import FIRST_ID, UNKNOWN_ID
from recsys.config import RetrieverConfig, RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.loader import SequenceLoader
from recsys.sample import Uniform
from recsys.train.contrast_terms import ItemViews, SequenceViews
from recsys.train.distributed import place
from recsys.train.retrieval_objective import NEXT_ITEM, RetrievalLearner

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
TOWER = {"features": ["genre", "tags"]}
ALL = {
    "tower": TOWER, "uniformity": {"kind": "calibrated_uniformity"}, "item_views": {"items": 30},
    "sequence_views": {"first": {"kind": "substitute"}, "second": {"kind": "mask", "share": 0.5}},
}  # fmt: skip
SAMPLED = {"negatives": {"kind": "uniform", "count": 8}}
RETRIEVERS: dict[str, dict[str, Any]] = {
    "sasrec": {},
    "hstu+sampled": {"encoder": {"kind": "hstu", "dim": 16, "blocks": 1}, "loss": {"kind": "sampled_softmax"}, **SAMPLED},
    "mean+bpr+cosine": {
        "encoder": {"kind": "mean_pooling", "dim": 16}, "loss": {"kind": "bpr"}, **SAMPLED, "similarity": {"kind": "cosine"},
    },
    "gbce+nested": {"loss": {"kind": "gbce"}, **SAMPLED, "matryoshka": {"dims": [8, 16]}, "denoise": {"kind": "truncated"}},
}  # fmt: skip


def config_with(retriever: dict[str, Any], **fit: Any) -> RunConfig:
    base = planted_config({"epochs": 1, "batch_size": 64, **fit}).model_dump(mode="json")
    base["data"]["items"] = {"path": "-", "id": "i", "features": dict.fromkeys(("genre", "tags", "maker", "style"), "f")}
    return RunConfig.model_validate(base | {"retriever": base["retriever"] | retriever})


class Bench:
    """A placed retriever without dropout, its learner with the terms of a config, and a batch."""

    def __init__(self, data: Dataset, device: torch.device, retriever: dict[str, Any], *, sampled: bool = False):
        config = config_with(retriever)
        codes = models.item_codes(config, data, device)
        torch.manual_seed(0)
        self.model = place(models.retriever(config, data), device).eval()
        sampler = Uniform(count=8).build(torch.from_numpy(data.train_count_I.copy())) if sampled else None
        self.learner = RetrievalLearner(
            loss=config_with({"loss": {"kind": "bpr"}}).retriever.loss if sampled else config.retriever.loss,
            similarity=config.retriever.similarity, codes=codes, sampler=sampler, terms=contrast_terms(config, data, codes),
        )  # fmt: skip
        self.batch = next(iter(SequenceLoader(data, 6, 64, 1).epoch(0)))

    def losses(self, batch: Batch | None = None, seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each term's loss, and the vectors looked up, as leaves."""
        batch = batch or self.batch
        drawn = self.learner.draw(batch, Generator().manual_seed(seed))
        leaf = {name: vector.detach().requires_grad_() for name, vector in self.model.embeddings(drawn.ids).items()}
        outcome = self.learner.losses(self.model, leaf, batch, drawn, self.learner.counts(batch), 0)
        return dict(zip(self.learner.weights, outcome.loss_T, strict=True)), leaf


@pytest.mark.parametrize("retriever", RETRIEVERS.values(), ids=RETRIEVERS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_retriever_bears_all_terms(
    retriever: dict[str, Any], precision: str, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    class Steps(Recorder):
        def step(self, job: str, *, metrics: dict[str, float], **_: Any) -> None:
            told.append(metrics)

    told: list[dict[str, float]] = []
    config = config_with(ALL | retriever, precision=precision, report_gradients_every=2)
    train_retriever(config, planted, tmp_path / "out", device=group, progress=Steps())
    for index, metrics in enumerate(told):
        losses = [metrics[f"loss/{name}"] for name in (NEXT_ITEM, "sequence_views", "item_views", "uniformity")]
        assert metrics["loss"] == pytest.approx(losses[0] + 0.1 * sum(losses[1:]), rel=1e-5)
        assert losses[1] > 0
        assert losses[2] > 0
        assert ("conflict/next_item/item_views" in metrics) == (index % 2 == 0)


def test_a_term_is_the_same_beside_every_loss(planted: Dataset, group: torch.device) -> None:
    """Sampled losses look up a few items, the full softmax all: what a view reads is there either way, and reads the same."""
    full, sampled = Bench(planted, group, ALL), Bench(planted, group, ALL, sampled=True)
    sampled.learner = replace(sampled.learner, sampler=_Apart(sampled.learner.sampler))
    for seed in range(3):
        whole, few = full.losses(seed=seed)[0], sampled.losses(seed=seed)[0]
        for name in ("sequence_views", "item_views", "uniformity"):
            torch.testing.assert_close(whole[name], few[name], msg=name)
        assert not torch.isclose(whole[NEXT_ITEM], few[NEXT_ITEM])


class _Apart:
    """A sampler that takes nothing from the step's generator, so that the terms draw alike with and without it."""

    def __init__(self, sampler: Any):
        self.sampler = sampler

    def __call__(self, target_N: Tensor, generator: Generator) -> Any:
        return self.sampler(target_N, Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["sequence_views", "item_views", "uniformity"])
def test_terms_leave_the_loss_of_the_next_item_alone(name: str, planted: Dataset, group: torch.device) -> None:
    with_term, without = Bench(planted, group, {"tower": TOWER, name: ALL[name]}), Bench(planted, group, {"tower": TOWER})
    assert list(with_term.learner.weights) == [NEXT_ITEM, name]
    assert torch.equal(with_term.losses()[0][NEXT_ITEM], without.losses()[0][NEXT_ITEM])


@pytest.mark.parametrize("name", ["sequence_views", "item_views", "uniformity"])
def test_a_term_is_the_same_at_every_call_and_another_one_in_the_next_step(
    name: str, planted: Dataset, group: torch.device
) -> None:
    noisy = {"first": {"kind": "noise"}, "second": {"kind": "crop"}}
    bench = Bench(planted, group, {"tower": TOWER, name: noisy if name == "sequence_views" else ALL[name]})
    drawn = bench.learner.draw(bench.batch, Generator().manual_seed(1))
    found, count_T = bench.model.embeddings(drawn.ids), bench.learner.counts(bench.batch)
    first, second = (bench.learner.losses(bench.model, found, bench.batch, drawn, count_T, 0).loss_T for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[1], bench.losses(seed=2)[0][name])


@pytest.mark.parametrize("kind", ["crop", "mask", "reorder", "substitute", "dropout", "noise"])
def test_views_of_histories_never_hold_what_is_predicted_last(kind: str, planted: Dataset, group: torch.device) -> None:
    """No item is twice in a planted walk. What goes best with an item is the next one, so the last event is within reach."""
    spec = {"kind": kind, **({"share": 1.0} if kind == "substitute" else {})}
    bench = Bench(planted, group, {"sequence_views": {"first": spec, "second": {"kind": "mask", "share": 0}}})
    (term,) = bench.learner.terms
    place_I = torch.arange(NUM_ITEMS) - FIRST_ID
    next_I = (place_I // BLOCK_ITEMS * BLOCK_ITEMS + (place_I + 1) % BLOCK_ITEMS + FIRST_ID).clamp(min=0)
    term = replace(term, similar_I=next_I)
    for seed in range(10):
        parts, times, rows, row_times = _views(term, bench.batch, seed)
        assert len(parts) == len(times) == len(rows) > 10
        for part, time, row, row_time in zip(parts, times, rows, row_times, strict=True):
            assert 0 < len(part) < len(row)
            assert row[-1] not in part
            assert len(time) == len(part) + 1
            if kind == "crop":
                begin = row.index(part[0])
                assert part == row[begin : begin + len(part)]
                assert time == row_time[begin : begin + len(time)], "each event's own time, and then that of what follows"
            else:
                assert time == row_time


def _views(term: Any, batch: Batch, seed: int) -> tuple[list[list[int]], ...]:
    """Items and times of both views of every window that has some, and those of the windows, twice."""
    read, window = term.draw(batch, Generator().manual_seed(seed)).extra, batch.ids["history"]
    length_V, length_B = read.history.length_B, window.length_B
    found = (
        (read.history.value_N, length_V),
        (read.time_M, length_V + 1),
        (window.value_N, length_B),
        (batch.time_N, length_B),
    )
    parts, times, rows, row_times = ([part.tolist() for part in value.split(length.tolist())] for value, length in found)
    rows, row_times = ([row for row in each if len(row) > 2] * 2 for each in (rows, row_times))
    return parts, times, rows, row_times


@pytest.mark.parametrize("kind", ["dropout", "noise"])
def test_dropout_makes_two_views_of_one_history(kind: str, planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, {"sequence_views": {"first": {"kind": kind}, "second": {"kind": "dropout"}}})
    seen = []
    encode = bench.model.encode
    bench.model.encode = lambda *args: seen.append(encode(*args)) or seen[-1]  # type: ignore[method-assign,func-returns-value]
    for training in (False, True):
        bench.model.train(training)
        seen.clear()
        bench.losses()
        first, second = seen[-1].chunk(2)
        assert torch.equal(first, second) == (kind == "dropout" and not training)


@pytest.mark.parametrize("mask", ["correlated", "random"])
def test_item_views_split_the_features_and_leave_out_the_item_itself(mask: str, planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, {"tower": TOWER, "item_views": {"mask": {"kind": mask}, "items": 500, "value_dropout": 0}})
    (term,) = bench.learner.terms
    assert isinstance(term, ItemViews)
    sides = set()
    for seed in range(20):
        asked = term.draw(bench.batch, Generator().manual_seed(seed))
        assert set(asked.content) == {"genre", "tags"}, "the item's own row is looked up for neither view"
        assert asked.items is None
        assert sorted(asked.extra.in_first_F) == [False, True]
        sides.add(tuple(asked.extra.in_first_F))
        for name, codes in asked.content.items():  # all items were drawn, each once, with all it has of known values
            whole = planted.codes(name, "item")
            expected = [
                [int(code) for code in whole.item_E[whole.offset_U1[item] : whole.offset_U1[item + 1]] if code >= FIRST_ID]
                for item in range(FIRST_ID, NUM_ITEMS)
            ]
            assert [part.tolist() for part in codes.value_N.split(codes.length_B.tolist())] == expected
    assert len(sides) == 2


def test_a_view_of_an_item_hangs_on_its_own_features_alone(planted: Dataset, group: torch.device) -> None:
    """The gradient goes to rows of content of both views, and to no item's own vector."""
    bench = Bench(planted, group, {"tower": TOWER, "item_views": {"items": 20}})
    losses, leaf = bench.losses()
    losses["item_views"].backward()
    assert not leaf["item"].grad.any()
    for name in ("genre", "tags"):
        rows = leaf[name].grad.norm(dim=1) > 0
        assert not rows[:NUM_ITEMS].any(), "the rows that the catalogue's own vectors are made of"
        assert rows[NUM_ITEMS:].any()


def test_each_term_gets_the_rows_it_asked_for(planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, {"tower": TOWER, "item_views": {"items": 20}})
    (term,) = bench.learner.terms
    alone = bench.losses()[0]["item_views"]
    bench.learner = replace(bench.learner, terms=(term, replace(term, items=30, name="more")))
    both = bench.losses()[0]
    assert torch.equal(both["item_views"], alone)
    assert not torch.isclose(both["more"], alone)


def test_correlations_are_those_of_the_catalogue(make_dataset: Any, group: torch.device) -> None:
    """Style follows from maker, genre is a coin: only the first two go together, in the order of the tower's features."""
    maker = [int(code) for code in torch.randint(FIRST_ID, 8, (100,), generator=Generator().manual_seed(1))]
    genre = [int(code) for code in torch.randint(FIRST_ID, 4, (100,), generator=Generator().manual_seed(2))]
    features = {"maker": maker, "style": [code // 2 + FIRST_ID for code in maker], "genre": genre}
    data = make_dataset([[2, 3]], num_items=102, features={name: ("item", [1, 1, *codes]) for name, codes in features.items()})
    tower = {"features": ["genre", "style", "maker"]}
    (term,) = Bench(data, group, {"tower": tower, "item_views": {}}).learner.terms
    assert isinstance(term, ItemViews)
    assert term.mutual_FF[1, 2] > 1
    assert term.mutual_FF[0, 1:].max() < 0.2


@pytest.mark.parametrize("kind", ["crop", "mask"])
def test_gradients_flow_through_both_views(kind: str, planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, {"sequence_views": {"first": {"kind": kind}, "second": {"kind": "mask", "share": 0.5}}})
    losses, leaf = bench.losses()
    losses["sequence_views"].backward()
    assert leaf["item"].grad[UNKNOWN_ID].norm() > 0
    assert leaf["item"].grad[FIRST_ID:].norm() > 0
    assert all(p.grad is not None for p in _dense(bench.model))


def test_short_histories_have_no_views(planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, {"sequence_views": {}})
    window = bench.batch.ids["history"]
    short = Batch({"history": type(window)(window.value_N[:6], torch.tensor([1, 2, 2, 1]))}, time_N=bench.batch.time_N[:6])
    losses, _ = bench.losses(short)
    assert losses["sequence_views"] == 0
    losses["sequence_views"].backward()


def test_pairs_are_as_many_as_asked_for(planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, {"uniformity": {"kind": "alignment_uniformity", "pairs": 10}})
    (term,) = bench.learner.terms
    events = [term.draw(bench.batch, Generator().manual_seed(seed)).extra.event_V.tolist() for seed in range(2)]
    assert [len(set(part)) for part in events] == [10, 10]
    assert events[0] != events[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_views": {}, "tower": {"features": ["genre"]}}, "there are 1: name two or more"),
        ({"uniformity": {"kind": "calibrated_uniformity"}}, "compares items by tower.features, which are empty"),
        ({"sequence_views": {}, "fit": {"accumulate": 2}}, "accumulate 2 takes a batch in parts, sequence_views"),
        ({"uniformity": {"kind": "alignment_uniformity"}, "fit": {"accumulate": 2}}, "in parts, uniformity compares all"),
        (
            {
                "sequence_views": {"first": {"kind": "dropout"}, "second": {"kind": "dropout"}},
                "encoder": {"kind": "sasrec", "dropout": 0},
            },
            "two dropout views are equal",
        ),
        ({"sequence_views": {"first": {"kind": "crop", "share": 0}}}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused_in_the_config(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RetrieverConfig.model_validate(change)


def test_a_log_without_pairs_has_no_substitutes(make_dataset: Any, group: torch.device) -> None:
    data = make_dataset([[FIRST_ID + 3]] * 5)
    config = config_with({"sequence_views": {"first": {"kind": "substitute"}}})
    with pytest.raises(InputError, match="cannot substitute: choose crop or mask"):
        contrast_terms(config, data, models.item_codes(config, data))


def test_only_what_is_asked_for_is_there(planted: Dataset, group: torch.device) -> None:
    assert Bench(planted, group, {}).learner.terms == ()
    (term,) = Bench(planted, group, {"sequence_views": {}}).learner.terms
    assert isinstance(term, SequenceViews)
    assert term.similar_I is None, "nothing is counted for views that do not read it"


def _dense(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if not name.startswith("embeddings.") and not name.endswith("place")]
