"""One step: precision, what is checked before anything changes, and what the optimizers are told."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_data import planted_config
from torch import Tensor
from training_runs import Recorder, Toy, assert_same_tensors, tensors, toy_job, train, without_dropout

from recsys.batch import Batch
from recsys.dataset import Dataset
from recsys.fit import Fit
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place
from recsys.train.step import NotFiniteError, Stepper, part_sizes
from recsys.train.watch import Stopwatch

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


class Bench:
    """A placed toy model, and steps of it on the first batches."""

    def __init__(self, data: Dataset, device: torch.device, learner: Toy | None = None, **settings: Any):
        torch.manual_seed(0)
        self.job = toy_job(data, lambda _: {"m": 1.0}, learner or Toy(data))
        spec = Fit(warmup_steps=0, **settings)
        self.model = place(self.job.build(), device, learning_rate=spec.embedding_learning_rate)
        self.stepper = Stepper(self.job, spec, self.model, device)
        self.batches: Iterator[Batch] = iter(self.job.loader.epoch(0))
        self.device = device

    def step(self) -> dict[str, float]:
        batch = next(self.batches)
        terms = self.stepper(batch, 0, 1.0, torch.Generator().manual_seed(1), Stopwatch(self.device))
        return {name: float(value) for name, value in terms.items()}

    def state(self) -> dict[str, Tensor]:
        return model_state(self.model)

    def moments(self) -> int:
        return len(self.stepper.dense.state_dict()["state"])


class Overflowing(Toy):
    """The gradient of one step does not fit float16, the loss does."""

    def __init__(self, data: Dataset, *, step: int, every: bool = False):
        super().__init__(data)
        self.bad, self.every, self.calls = step, every, 0

    def loss(self, hidden_MD: Tensor, item_CD: Tensor) -> Tensor:
        self.calls += 1
        fine = super().loss(hidden_MD, item_CD)
        bad = self.calls >= self.bad if self.every else self.calls == self.bad
        # the gradient of the root at 0 is infinite, the loss is 0
        return fine + (hidden_MD.sum() - hidden_MD.sum().detach()).abs().sqrt() if bad else fine


def test_an_overflow_in_float16_changes_nothing_but_the_scale(planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, Overflowing(planted, step=2), precision="float16")
    assert math.isfinite(bench.step()["gradient_norm"])
    before, scale = bench.state(), bench.stepper.scale
    terms = bench.step()
    assert "gradient_norm" not in terms
    assert math.isfinite(terms["loss"])
    assert bench.stepper.scale == scale / 2
    assert_same_tensors(bench.state(), before)
    assert not [p for p in bench.stepper.parameters if p.grad is not None], "the overflow would be added to the next step"
    assert math.isfinite(bench.step()["gradient_norm"])
    after = bench.state()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert any("item.weight" in name for name in changed)
    assert any(name.startswith("encoder.") for name in changed)


def test_a_step_in_float16_is_that_of_float32_but_for_rounding(planted: Dataset, group: torch.device) -> None:
    """Adam and row-wise Adagrad are blind to a constant factor, so the norm and plain SGD have to tell it."""
    found = {}
    for precision in ("float32", "float16", "bfloat16"):
        bench = Bench(planted, group, precision=precision)
        found[precision] = bench.step()
    for half in ("float16", "bfloat16"):
        for name in ("loss", "loss/toy", "gradient_norm"):
            assert found[half][name] == pytest.approx(found["float32"][name], rel=0.05), (half, name)


def test_float16_that_overflows_at_every_scale_ends(planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, Overflowing(planted, step=1, every=True), precision="float16")
    before = bench.state()
    bench.stepper.scale = 2.0  # what many halvings have left
    bench.step()
    assert bench.stepper.scale == 1
    with pytest.raises(NotFiniteError, match="overflows float16 at every scale"):
        bench.step()
    assert_same_tensors(bench.state(), before)


class NotFinite(Toy):
    """A loss that is finite, with a gradient that is not: of the items' vectors alone, or of the encoder."""

    def __init__(self, data: Dataset, where: str):
        super().__init__(data)
        self.where = where

    def loss(self, hidden_MD: Tensor, item_CD: Tensor) -> Tensor:
        chosen = item_CD if self.where == "embedding vectors" else hidden_MD
        root = (chosen.sum() - chosen.sum().detach()).abs().sqrt()
        fine = super().loss(hidden_MD, item_CD)
        return fine * float("nan") if self.where == "loss" else fine + root


@pytest.mark.parametrize("where", ["loss", "norm of the gradient", "embedding vectors"])
def test_what_is_not_finite_stops_before_anything_changes(where: str, planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, NotFinite(planted, where))
    before = bench.state()
    with pytest.raises(NotFiniteError, match=f"{where} is (nan|inf|-inf)"):
        bench.step()
    assert_same_tensors(bench.state(), before)
    assert bench.moments() == 0


def test_only_matrices_decay(planted: Dataset, group: torch.device) -> None:
    """With a learning rate r and a decay d a matrix shrinks by 1 - r d beside its step; vectors and tables do not."""
    ends = []
    for decay in (0.0, 0.5):
        bench = Bench(planted, group, weight_decay=decay, learning_rate=0.01)
        begin = bench.state()
        bench.step()
        ends.append(bench.state())
    names = [name for name in begin if name.startswith("encoder.")]
    assert {begin[name].ndim for name in names} == {1, 2}
    for name, tensor in begin.items():
        decays = name.startswith("encoder.") and tensor.ndim == 2
        expected = ends[0][name] - 0.01 * 0.5 * tensor if decays else ends[0][name]
        torch.testing.assert_close(ends[1][name], expected, msg=name, atol=1e-7, rtol=1e-5)
    tables = [name for name in begin if name.startswith("embeddings.")]
    assert tables
    assert not [name for name in tables if torch.equal(begin[name], ends[1][name])]


def test_the_dense_gradient_is_clipped_and_its_own_norm_told(planted: Dataset, group: torch.device) -> None:
    bench = Bench(planted, group, clip_norm=1e-6)
    seen: list[float] = []
    step = bench.stepper.dense.step

    def spy() -> None:
        seen.append(float(torch.cat([p.grad.flatten() for p in bench.stepper.parameters if p.grad is not None]).norm()))
        step()

    bench.stepper.dense.step = spy  # type: ignore[method-assign]
    assert bench.step()["gradient_norm"] > 1e-3
    assert seen == [pytest.approx(1e-6, rel=1e-2)]


def test_parts_of_a_batch() -> None:
    assert part_sizes(10, 3) == [4, 3, 3]
    assert part_sizes(2, 5) == [1, 1]
    assert part_sizes(5, 1) == [5]


@pytest.mark.parametrize("part", ["retriever", "ranker"])
def test_more_parts_than_rows(part: str, planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    results = []
    for accumulate in (1, 1000):
        config = without_dropout(planted_config({"epochs": 1, "batch_size": 8, "accumulate": accumulate}))
        train(part, config, planted, tmp_path / f"{accumulate}", group, stop_after_steps=3)
        results.append(tensors(max((tmp_path / f"{accumulate}.resume").iterdir())))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], atol=2e-5, rtol=1e-3, msg=name)


class Metrics(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, float]] = []

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        self.steps.append(metrics)


@pytest.mark.parametrize("change", [{"accumulate": 4}, {"precision": "float16"}], ids=str)
def test_reports_of_gradients_have_their_rhythm_and_their_scale(
    change: dict[str, Any], planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    """A cosine of a part of the batch is still a cosine, and a norm is not multiplied by what float16 needs."""
    reports = []
    for name, settings in (("plain", {}), ("changed", change)):
        metrics = Metrics()
        fit = {"epochs": 1, "batch_size": 256, "report_gradients_every": 2, **settings}
        train("ranker", without_dropout(planted_config(fit)), planted, tmp_path / name, group, progress=metrics)
        told = ["conflict/click/like" in each for each in metrics.steps]
        assert told == [index % 2 == 0 for index in range(len(told))]
        reports.append(metrics.steps[0])
    plain, changed = reports
    for name in ("gradient_norm/click", "gradient_norm/like"):
        ratio = changed[name] / plain[name]
        assert 0.2 < ratio < 4, name  # a quarter of the rows has about a quarter of the gradient, or somewhat more
    assert -1 <= changed["conflict/click/like"] <= 1
    if "precision" in change:
        assert changed["conflict/click/like"] == pytest.approx(plain["conflict/click/like"], abs=0.05)
        assert changed["loss"] == pytest.approx(plain["loss"], rel=0.02)
