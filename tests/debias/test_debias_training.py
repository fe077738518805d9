"""Debiasers in the ranker's and the retriever's training: what reaches them, and what is refused."""

import copy
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import torch
from debias_world import World, built
from planted_data import planted_config

from pipelines.train import train_ranker, train_retriever
from recsys.columns import FIRST_ID, ITEM, POSITION, SPLIT, TRAIN, USER, VALID, asof, label
from recsys.config import RankerConfig, RetrieverConfig, RunConfig
from recsys.dataset import Dataset
from recsys.debias import Debias
from recsys.debias.doubly_robust import DoublyRobust
from recsys.errors import InputError
from recsys.heads.regression import Regression
from recsys.loader import ExampleLoader
from recsys.models.item_codes import ItemCodes
from recsys.train.debiasing import Debiasing
from recsys.train.job import BadWeightsError
from recsys.train.ranking_objective import RankingLearner

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
KINDS = {spec.model_fields["kind"].default: spec for spec in get_args(get_args(Debias)[0])}
EVENTS = {
    "path": "-", "user": "u", "item": "i", "labels": {"click": "c", "like": "l", "arm": "a"}, "context": {"hour": "h"},
    "propensity": "p", "slot": "s",
}  # fmt: skip


class Recorder:
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def step(self, job: str, *, metrics: dict[str, Any], **_: Any) -> None:
        self.steps.append({name: float(value) for name, value in metrics.items()})

    def validated(self, job: str, **_: Any) -> None: ...


def config(debias: Any, part: str = "ranker", **more: Any) -> RunConfig:
    settings = {"tasks": {"click": 1.0, "like": 1.0}} if part == "ranker" else {}
    plain = planted_config({"epochs": 1, "batch_size": 64}).model_dump()
    return RunConfig.model_validate(
        plain | {"data": {"events": EVENTS}, part: plain[part] | settings | {"debias": debias} | more}
    )


def with_arm(data: Dataset, folder: Path) -> Dataset:
    """The planted log with a coin as a further label; it is the same otherwise."""
    shutil.copytree(data.folder, folder)
    for name in (folder / "examples").glob("*[0-9].arrow"):
        frame = pl.read_ipc(io.BytesIO(name.read_bytes()))
        coin = np.random.default_rng(1).integers(2, size=len(frame)).astype(np.float32)
        frame.with_columns(pl.Series(label("arm"), coin)).write_ipc(
            name, compression="uncompressed", compat_level=pl.CompatLevel.oldest()
        )
    made = Dataset(folder)
    made.manifest["tasks"].append("arm")
    return made


def trained(
    settings: RunConfig, data: Dataset, out: Path, device: torch.device, part: str = "ranker"
) -> list[dict[str, float]]:
    recorder = Recorder()
    train = train_retriever if part == "retriever" else train_ranker
    train(settings, data, out, device=device, progress=recorder)
    return recorder.steps


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_the_ranker(planted: Dataset, group: torch.device, tmp_path: Path, kind: str) -> None:
    data = with_arm(planted, tmp_path / "data")
    steps = trained(config(built(KINDS[kind]).model_dump()), data, tmp_path / "ranker", group)
    assert all(np.isfinite(list(step.values())).all() for step in steps)
    plain = trained(config(None), data, tmp_path / "plain", group)
    assert [step["loss"] for step in steps] != [step["loss"] for step in plain]


@pytest.mark.parametrize("kind", [kind for kind, spec in KINDS.items() if spec.neutral() is not None])
def test_neutral_settings_train_as_without(planted: Dataset, group: torch.device, tmp_path: Path, kind: str) -> None:
    """The first loss to the bit; later ones as far as pairs without a loss leave the same sums in another order."""
    plain = trained(config(None), planted, tmp_path / "plain", group)
    steps = trained(config(KINDS[kind].neutral().model_dump()), planted, tmp_path / kind, group)
    assert steps[0]["loss"] == plain[0]["loss"]
    if not KINDS[kind].reads_pairs:
        assert [step["loss"] for step in steps] == [step["loss"] for step in plain]


def test_shares_are_logged(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    spec = {"kind": "ips", "propensity": {"kind": "popularity", "exponent": 1.0}, "clip": 1.0}
    steps = trained(config(spec), planted, tmp_path / "ranker", group)
    assert 0 < np.mean([step["clipped_share"] for step in steps]) < 1
    assert all(0 < step["effective_share"] < 1 for step in steps)


def test_the_imputer_is_trained(planted: Dataset, group: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, modules = DoublyRobust.build, []

    def remembered(self: DoublyRobust, width: int, tasks: int) -> torch.nn.Module:
        modules.append(build(self, width, tasks))
        modules.append(copy.deepcopy(modules[0]))
        return modules[0]

    monkeypatch.setattr(DoublyRobust, "build", remembered)
    trained(config({"kind": "doubly_robust", "pairs": 2}), planted, tmp_path / "ranker", group)
    after, before = modules
    assert all(not torch.equal(*pair) for pair in zip(after.parameters(), before.parameters(), strict=True))


def test_a_resumed_run_has_the_imputer_it_had(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    settings = config({"kind": "doubly_robust"})
    whole = trained(settings, planted, tmp_path / "whole", group)
    first, second = Recorder(), Recorder()
    train_ranker(settings, planted, tmp_path / "cut", device=group, progress=first, stop_after_steps=5)
    train_ranker(settings, planted, tmp_path / "cut", device=group, progress=second)
    assert [step["own_loss"] for step in first.steps + second.steps] == [step["own_loss"] for step in whole]


@pytest.mark.parametrize("kind", ["ips", "snips"])
def test_targets_of_the_retriever_are_weighed(planted: Dataset, group: torch.device, tmp_path: Path, kind: str) -> None:
    """With an exponent of 0 as without, else not."""

    def losses(debias: Any, name: str) -> list[float]:
        return [step["loss"] for step in trained(config(debias, "retriever"), planted, tmp_path / name, group, "retriever")]

    plain = losses(None, "plain")
    assert losses({"kind": kind, "propensity": {"kind": "popularity", "exponent": 0}}, "even") == pytest.approx(plain, rel=1e-4)
    weighed = losses({"kind": kind, "propensity": {"kind": "popularity", "exponent": 1}}, "weighed")
    assert weighed[0] != pytest.approx(plain[0], rel=1e-4)


class TestObjective:
    """By hand, with a model that answers with a number of each item."""

    class Model(torch.nn.Module):
        names = ("user", "item")

        def __init__(self) -> None:
            super().__init__()
            self.calls: list[int] = []

        def forward(self, found: dict[str, torch.Tensor], batch: Any) -> torch.Tensor:
            self.calls.append(len(found["item"]))
            return found["item"][:, :1]

        def parts(self, found: Any, batch: Any, sizes: list[int]) -> Any:
            begin = 0
            for size, part in zip(sizes, batch.split(sizes), strict=True):
                yield {name: vector[begin : begin + size] for name, vector in found.items()}, part
                begin += size

    @pytest.fixture
    def loader(self, world: World) -> ExampleLoader:
        data = world.dataset
        propensity_X = np.linspace(0.1, 1, len(data.example_rows(TRAIN)))
        return ExampleLoader(
            data, tasks=["rating"], split=TRAIN, max_history=3, batch_size=16, seed=1, propensity_X=propensity_X, arm="arm"
        )

    @staticmethod
    def learner(spec: Any, data: Dataset) -> RankingLearner:
        codes = ItemCodes.make(data.train_count_I, {"genre": data.codes("genre", "item")}, torch.device("cpu"))
        torch.manual_seed(0)
        pairs = spec.pairs_per_row if spec.reads_pairs else 0
        debias = Debiasing(spec.build(16, 1), spec.kind, 0.5, 0.0, pairs, codes)
        return RankingLearner({"rating": 1.0}, (), Regression(), debias=debias)

    def outcome(self, spec: Any, loader: ExampleLoader, step: int = 0) -> Any:
        batch, model, learner = next(iter(loader.epoch(0))), self.Model(), self.learner(spec, loader.dataset)
        drawn = learner.draw(batch, torch.Generator().manual_seed(step))
        generator = torch.Generator().manual_seed(3)
        vectors_ID = torch.randn(loader.dataset.num_items, 8, generator=generator)
        found = {
            "item": vectors_ID[drawn.ids["item"].value_N].requires_grad_(),
            "user": torch.zeros(len(drawn.ids["user"].value_N), 8),
        }
        count_T = learner.counts(batch)
        return batch, found, learner.losses(model, found, batch, drawn, count_T, 0), drawn, model

    def test_rows_are_weighed_by_their_own_propensity(self, loader: ExampleLoader) -> None:
        batch, found, outcome, _, model = self.outcome(KINDS["ips"](), loader)
        logit_B, label_B = found["item"][:, 0], batch.label_BT[:, 0]
        loss_B = torch.nn.functional.binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
        row_X = loader.row_X
        every = dict(zip(row_X.tolist(), loader.propensity_X.tolist(), strict=True))
        expected_B = torch.tensor([every[row] for row in next(loader._mine(0, 0)).tolist()])
        torch.testing.assert_close(batch.propensity_B, expected_B.float())
        torch.testing.assert_close(outcome.loss_T[0], (loss_B * 0.5 / expected_B).mean().float())
        assert model.calls == [16]

    def test_pairs_have_the_users_of_the_rows_and_random_items(self, loader: ExampleLoader) -> None:
        spec = KINDS["doubly_robust"](pairs=3)
        batch, found, outcome, drawn, model = self.outcome(spec, loader)
        assert model.calls == [16, 48]
        assert drawn.ids["user"].value_N.tolist() == batch.ids["user"].value_N.tolist() * 4
        assert drawn.ids["country"].value_N.tolist() == batch.ids["country"].value_N.tolist() * 4
        assert drawn.ids["history"].length_B.tolist() == batch.ids["history"].length_B.tolist() * 4
        item = drawn.ids["item"].value_N
        assert item[:16].tolist() == batch.ids["item"].value_N.tolist()
        assert item[16:].min() >= FIRST_ID
        assert item[16:].max() < loader.dataset.num_items
        assert drawn.ids["genre"].value_N.tolist() == loader.dataset.codes("genre", "item").item_E[item.numpy()].tolist()
        gradient = torch.autograd.grad(outcome.loss_T.sum(), found["item"], retain_graph=True)[0]
        assert gradient[16:].any(), "pairs teach the model"
        own = torch.autograd.grad(outcome.own, found["item"], allow_unused=True)[0]
        assert own is None or not own.any(), "the imputer's loss does not"

    def test_items_are_drawn_evenly_and_anew_in_each_step(self, loader: ExampleLoader) -> None:
        learner = self.learner(KINDS["doubly_robust"](pairs=50), loader.dataset)
        batch = next(iter(loader.epoch(0)))
        draws = [learner.draw(batch, torch.Generator().manual_seed(s)).ids["item"].value_N[16:] for s in range(8)]
        assert not torch.equal(draws[0], draws[1])
        again = learner.draw(batch, torch.Generator().manual_seed(0)).ids["item"].value_N[16:]
        assert torch.equal(draws[0], again)
        count_I = torch.cat(draws).bincount(minlength=loader.dataset.num_items)[FIRST_ID:].double()
        expected = count_I.sum() / len(count_I)
        chi = ((count_I - expected) ** 2 / expected).sum()
        assert chi < 60  # 29 degrees of freedom: passed by one in a thousand

    def test_bad_weights_name_the_technique(self, loader: ExampleLoader) -> None:
        loader.propensity_X = np.full(len(loader.row_X), np.nan)
        with pytest.raises(BadWeightsError, match="the weights of ips are not finite numbers"):
            self.outcome(KINDS["ips"](), loader)

    def test_the_arm_comes_with_the_batch(self, loader: ExampleLoader) -> None:
        batch = next(iter(loader.epoch(0)))
        first, second = batch.split([5, 11])
        assert batch.arm_B.tolist() == first.arm_B.tolist() + second.arm_B.tolist()
        assert set(batch.arm_B.tolist()) == {0.0, 1.0}
        assert batch.label_BT.shape == (16, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"debias": {"kind": "ips", "propensity": {"kind": "naive_bayes", "positive_share": 0.2}}}, "the label of one task"),
        ({"debias": {"kind": "doubly_robust", "propensity": {"kind": "examination"}}}, "choose kind ips or snips"),
        ({"debias": {"kind": "doubly_robust"}, "fit": {"accumulate": 2}}, "fit.accumulate cuts batches into parts"),
        ({"debias": {"kind": "ips", "clip": 2}}, "less than or equal to 1"),
        ({"debias": {"kind": "ips", "propensity": {"kind": "popularity", "power": 1}}}, "power"),
        ({"debias": {"kind": "psi"}}, "psi"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**settings)


@pytest.mark.parametrize(("source", "column"), [("logged", "propensity"), ("examination", "slot")])
def test_a_column_that_is_not_named_is_refused_at_load(source: str, column: str) -> None:
    events = {name: value for name, value in EVENTS.items() if name != column}
    plain = planted_config().model_dump() | {"data": {"events": events}}
    plain["ranker"] |= {"debias": {"kind": "ips", "propensity": {"kind": source}}}
    with pytest.raises(ValueError, match=rf"needs data\.events\.{column}: name its column"):
        RunConfig.model_validate(plain)


@pytest.mark.parametrize("source", ["naive_bayes", "examination"])
def test_numbers_have_no_clicks(source: str) -> None:
    events = EVENTS | {"labels": {"stars": {"kind": "quantile", "value": "stars"}}}
    share = {"positive_share": 0.5} if source == "naive_bayes" else {}
    plain = planted_config().model_dump() | {"data": {"events": events}}
    plain["ranker"] |= {"tasks": {"stars": 1.0}, "debias": {"kind": "ips", "propensity": {"kind": source, **share}}}
    with pytest.raises(ValueError, match="needs a first task of 0 and 1"):
        RunConfig.model_validate(plain)
    plain["ranker"]["debias"] = {"kind": "doubly_robust"}
    with pytest.raises(ValueError, match="needs labels of 0 and 1"):
        RunConfig.model_validate(plain)


@pytest.mark.parametrize(
    ("debias", "words"),
    [
        ({"kind": "doubly_robust"}, "is about examples, which the retriever does not read"),
        ({"kind": "snips", "propensity": {"kind": "logged"}}, "choose popularity"),
    ],
)
def test_the_retriever_takes_popularity_alone(debias: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RetrieverConfig.model_validate({"debias": debias})
    assert RankerConfig.model_validate({"debias": debias}).debias is not None


def test_what_the_data_lacks_stops_training_before_it_begins(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    settings = config({"kind": "snips", "propensity": {"kind": "logged"}})
    with pytest.raises(InputError, match=r"needs data\.events\.propensity above 0"):
        train_ranker(settings, planted, tmp_path / "ranker", device=group, progress=Recorder())


def test_random_items_need_features_that_hold_still(
    make_dataset: Callable[..., Dataset], group: torch.device, tmp_path: Path
) -> None:
    rows = 40
    examples = pl.DataFrame(
        {
            USER: np.full(rows, FIRST_ID, np.int32),
            ITEM: np.arange(rows, dtype=np.int32) % 5 + FIRST_ID,
            POSITION: np.zeros(rows, np.int32),
            SPLIT: np.repeat([TRAIN, VALID], rows // 2).astype(np.int8),
            label("click"): (np.arange(rows) % 2).astype(np.float32),
            label("like"): (np.arange(rows) % 2).astype(np.float32),
            asof("price"): np.ones(rows, np.int32),
        }
    )
    data = make_dataset([[2, 3, 4]], num_items=9, examples=examples, features={"price": ("item", [1] * 9)})
    with pytest.raises(InputError, match="draws items at random, and what 'price' was for them then is not kept"):
        train_ranker(config({"kind": "doubly_robust"}), data, tmp_path / "ranker", device=group, progress=Recorder())
