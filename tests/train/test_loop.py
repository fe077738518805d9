"""The loop: when it ends and which model it keeps, what stops it with a sentence, and that every setting trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training_runs import (
    TRAINERS,
    Recorder,
    Toy,
    assert_same_tensors,
    config_of,
    history,
    refuse,
    run_toy,
    tensors,
    toy_job,
    train,
    without_dropout,
)

from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.fit import Fit
from recsys.train.loop import fit

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


def test_the_seed_alone_decides(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    for name, seed, drawn_before in (("a", 1, 0), ("b", 1, 5), ("c", 2, 0)):
        torch.manual_seed(drawn_before)
        train("retriever", config_of(epochs=1).model_copy(update={"seed": seed}), planted, tmp_path / name, group)
    assert_same_tensors(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    a, c = tensors(tmp_path / "a"), tensors(tmp_path / "c")
    assert all(not torch.equal(a[name], c[name]) for name in a if name.endswith(("start", "item.weight")))


def test_early_stopping_waits_for_patience_and_keeps_the_best(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    values, seen = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.9]), []

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in state.items()})
        return {"m": next(values)}

    manifest = run_toy(toy_job(planted, validate), tmp_path / "toy", group, epochs=20, patience=3)
    assert (manifest["epochs"], manifest["best"]) == (5, 0.5)  # equal is not better, so three without a better one end it
    assert_same_tensors(tensors(tmp_path / "toy"), seen[1])
    assert [entry["m"] for entry in history(tmp_path / "toy")] == [0.1, 0.5, 0.4, 0.5, 0.3]


def test_validation_follows_its_rhythm_and_the_last_epoch(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    manifest = run_toy(toy_job(planted, lambda _: {"m": 1.0}), tmp_path / "toy", group, epochs=5, evaluate_every=2, patience=9)
    assert [entry["epoch"] for entry in history(tmp_path / "toy")] == [2, 4, 5]
    assert manifest["epochs"] == 5


def test_a_metric_that_does_not_exist_neither_stops_nor_wins(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    values = iter([float("nan"), 0.2, float("nan"), 0.1])
    manifest = run_toy(
        toy_job(planted, lambda _: {"m": next(values), "other": float("nan")}), tmp_path / "toy", group, epochs=4
    )
    assert manifest["best"] == 0.2
    assert [entry.get("m") for entry in history(tmp_path / "toy")] == [None, 0.2, None, 0.1]
    json.loads((tmp_path / "toy" / "manifest.json").read_text(), parse_constant=refuse)


def test_time_ends_training_in_mid_epoch_with_a_validated_model(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    manifest = run_toy(toy_job(planted, lambda _: {"m": 1.0}), tmp_path / "toy", group, epochs=10**6, max_minutes=1e-9)
    assert manifest["steps"] == 1
    assert len(history(tmp_path / "toy")) == 1


class Breaking(Toy):
    def __init__(self, data: Dataset, broken: str):
        super().__init__(data)
        self.broken, self.calls = broken, 0

    def loss(self, hidden_MD: Tensor, item_CD: Tensor) -> Tensor:
        self.calls += 1
        fine = hidden_MD.mean() + item_CD.mean()
        if self.calls < 3:
            return fine
        return (
            fine * float("inf") if self.broken == "loss" else (hidden_MD.sum() - hidden_MD.sum().detach()).abs().sqrt() + fine
        )


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_at_its_step_and_keeps_the_batch(
    broken: str, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    out = tmp_path / "toy"
    with pytest.raises(InputError, match=r"toy: the (loss|norm of the gradient) is -?(inf|nan) at step 3: lower .*toy\.failed"):
        run_toy(toy_job(planted, lambda _: {"m": 1.0}, Breaking(planted, broken)), out, group, epochs=2)
    assert not out.exists()
    saved = load_file(tmp_path / "toy.failed" / "step-3-rank-0" / "batch.safetensors")
    assert saved["value_N/history"].numel() == saved["length_B/history"].sum() == saved["time_N"].numel()


def test_running_out_of_memory_names_the_knob(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    class Huge(Toy):
        def loss(self, hidden_MD: Tensor, item_CD: Tensor) -> Tensor:
            return torch.empty(2**50).sum()

    with pytest.raises(InputError, match=r"toy: out of memory at step 1: lower toy\.fit\.batch_tokens or batch_size"):
        run_toy(toy_job(planted, lambda _: {"m": 1.0}, Huge(planted)), tmp_path / "toy", group, epochs=1)


@pytest.mark.parametrize("part", ["retriever", "ranker"])
def test_a_batch_in_parts_gives_the_same_model(part: str, planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    results = []
    for accumulate in (1, 3):
        config = without_dropout(config_of(epochs=1, accumulate=accumulate))
        train(part, config, planted, tmp_path / f"{accumulate}", group)
        results.append(tensors(tmp_path / f"{accumulate}"))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], atol=2e-5, rtol=1e-4, msg=name)


def test_the_time_of_a_step_is_told_by_part_and_a_trace_is_written(
    planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    told: dict[str, float] = {}

    class Times(Recorder):
        def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
            told.update({name: value for name, value in metrics.items() if name.startswith("seconds/")})

    train(
        "retriever",
        config_of(epochs=2),
        planted,
        tmp_path / "r",
        group,
        progress=Times(),
        profile=tmp_path / "p" / "trace.json",
    )
    assert {"seconds/data", "seconds/lookup", "seconds/dense", "seconds/optimizer", "seconds/tables"} <= told.keys()
    assert all(value >= 0 for value in told.values())
    events = json.loads((tmp_path / "p" / "trace.json").read_text())["traceEvents"]
    assert any("embedding" in str(event.get("name")) for event in events)


def test_the_last_model_is_kept_where_asked(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    values, seen = iter([0.5, 0.4, 0.3]), []

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in state.items()})
        return {"m": next(values)}

    manifest = run_toy(toy_job(planted, validate), tmp_path / "toy", group, epochs=3, patience=1, keep="last")
    assert (manifest["epochs"], manifest["best"]) == (3, 0.3)  # nothing stops early, and the model's own value is told
    assert_same_tensors(tensors(tmp_path / "toy"), seen[2])


@pytest.mark.parametrize(
    "change",
    [{"deterministic": True}, {"precision": "bfloat16"}, {"batch_tokens": 60}, {"embedding_optimizer": "sgd"}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["sasrec", "hstu", "mean_pooling"])
def test_every_encoder_trains_with_every_setting(
    kind: str, change: dict[str, Any], planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config, recorder = config_of(epochs=3), Recorder()
    part = config.retriever.model_dump()
    changed = {**part, "encoder": {"kind": kind, "dim": 16}, "fit": {**part["fit"], **change}}
    config = config.model_copy(update={"retriever": type(config.retriever).model_validate(changed)})
    train("retriever", config, planted, tmp_path / "r", group, progress=recorder)
    third = len(recorder.losses) // 3
    assert sum(recorder.losses[-third:]) < sum(recorder.losses[:third])
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("balance", ["fixed", "uncertainty", "pcgrad"])
def test_the_ranker_trains_in_bfloat16_and_deterministically(
    balance: str, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config, recorder = config_of(epochs=2, precision="bfloat16", deterministic=True), Recorder()
    ranker = type(config.ranker).model_validate({**config.ranker.model_dump(), "balance": {"kind": balance}})
    train("ranker", config.model_copy(update={"ranker": ranker}), planted, tmp_path / "r", group, progress=recorder)
    assert sum(recorder.losses[-5:]) < sum(recorder.losses[:5])


def test_a_batch_of_one_row_will_do_where_there_is_one_process(
    planted: Dataset, group: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, config = Recorder(), config_of(batch_size=1)
    train("retriever", config, planted, tmp_path / "one", group, progress=recorder, stop_after_steps=2)
    assert len(recorder.losses) == 2
    monkeypatch.setattr("pipelines.train.dist.get_world_size", lambda: 3)
    for part in TRAINERS:
        with pytest.raises(InputError, match=rf"{part}\.fit\.batch_size 1 is over all 3 processes: raise it to 6"):
            train(part, config, planted, tmp_path / "three", group)


def test_learning_rates_warm_up_and_decay(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    shares: list[float] = []

    class Rates(Recorder):
        def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
            shares.append(metrics["rate_share"])

    spec = Fit(epochs=6, warmup_steps=3, final_share=0.1)
    fit(toy_job(planted, lambda _: {"m": 1.0}), spec, seed=1, device=group, out=tmp_path / "toy", identity={}, progress=Rates())
    assert len(shares) > 10
    assert shares[0] == pytest.approx(1 / 3)
    assert shares[2:] == sorted(shares[2:], reverse=True)
    assert 0.1 <= shares[-1] < 0.2
