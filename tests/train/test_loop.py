"""Resuming, stopping and failing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from planted_data import planted_config
from safetensors.torch import load_file
from torch import Tensor, nn

from pipelines.train import train_ranker, train_retriever
from recsys.artefact import read_manifest
from recsys.balance.fixed import Fixed
from recsys.batch import Batch
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.fit import Fit
from recsys.loader import SequenceLoader
from recsys.models.item_codes import ItemCodes
from recsys.models.item_tower import ItemTower
from recsys.models.retriever import Retriever
from recsys.models.sasrec import SASRec
from recsys.train.checkpoint import RESUME_FILE
from recsys.train.job import Drawn, Found, Job, Outcome, Start
from recsys.train.loop import HISTORY_FILE, MODEL_FILE, fit

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
WORKER = Path(__file__).parent / "train_planted.py"
SAMPLED = {
    "loss": {"kind": "sampled_softmax"},
    "negatives": {"kind": "uniform", "count": 16},
}  # draws random numbers in every step
TRAINERS: dict[str, Callable[..., dict[str, Any]]] = {"retriever": train_retriever, "ranker": train_ranker}


class Recorder:
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.validations: list[dict[str, float]] = []

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        self.losses.append(metrics["loss"])

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None:
        self.validations.append(metrics)


def config_of(**fit_settings: Any) -> RunConfig:
    config = planted_config({"epochs": 3, "batch_size": 32, **fit_settings})
    retriever = type(config.retriever).model_validate(config.retriever.model_dump() | SAMPLED)
    return config.model_copy(update={"retriever": retriever})


def train(part: str, config: RunConfig, data: Dataset, out: Path, device: torch.device, **options: Any) -> dict[str, Any]:
    recorder = options.pop("progress", Recorder())
    return TRAINERS[part](config, data, out, device=device, progress=recorder, **options)


def resume_folder(out: Path) -> Path:
    """The newest checkpoint of a run that is not at its end."""
    return max(out.with_name(out.name + ".resume").glob("step-*"))


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / (RESUME_FILE if folder.name.startswith("step-") else MODEL_FILE))


def history(out: Path) -> list[dict[str, Any]]:
    return without_clock(json.loads((out / HISTORY_FILE).read_text(), parse_constant=refuse))


def without_clock(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name not in ("seconds", "peak_memory_gib")} for entry in entries]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def assert_same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    assert not different


def state_without_clock(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_manifest(folder, "checkpoint")["state"]
    state["history"] = without_clock(state["history"])
    return {name: value for name, value in state.items() if name != "seconds"}


@pytest.mark.parametrize("part", ["retriever", "ranker"])
def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(
    part: str, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config, whole, parts = config_of(), tmp_path / "whole", tmp_path / "parts"
    steps = read_steps(part, config, planted)
    late = steps + steps // 2  # in the middle of the second epoch

    assert train(part, config, planted, whole, group, stop_after_steps=late) == {}
    assert not whole.exists()
    # Stops: at the first step, in mid-epoch, after an epoch's last step but before its validation, in the next epoch.
    for stop in (1, steps // 2, steps, steps + 1, late):
        torch.manual_seed(stop)  # whatever random numbers the process drew before
        train(part, config, planted, parts, group, stop_after_steps=stop)
    saved = tensors(resume_folder(whole))
    assert {name.split("/")[0] for name in saved} == {"model", "best", "dense", "fused_optimizer"}
    assert_same_tensors(saved, tensors(resume_folder(parts)))
    assert state_without_clock(resume_folder(whole)) == state_without_clock(resume_folder(parts))

    undisturbed = train(part, config, planted, tmp_path / "third", group)
    for out in (whole, parts):
        manifest = train(part, config, planted, out, group)
        assert manifest["best"] == undisturbed["best"]
        assert_same_tensors(tensors(out), tensors(tmp_path / "third"))
        assert history(out) == history(tmp_path / "third")
        assert not out.with_name(out.name + ".resume").exists()


def read_steps(part: str, config: RunConfig, data: Dataset) -> int:
    """Steps of the first epoch."""
    recorder = Recorder()
    out = data.folder.with_name(f"steps-{part}")
    one = config.model_copy(update={part: getattr(config, part).model_copy(update={"fit": Fit(batch_size=32, epochs=1)})})
    train(part, one, data, out, torch.device("cpu"), progress=recorder)
    assert len(recorder.losses) > 4
    return len(recorder.losses)


@pytest.mark.parametrize("kill", [{"kill_at_step": 9}, {"kill_in_save": 8}])
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    kill: dict[str, int], planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    settings = {"epochs": 3, "batch_size": 32, "checkpoint_minutes": 0}
    options = {
        "part": "retriever",
        "data": str(planted.folder),
        "out": str(tmp_path / "killed"),
        "config": {"fit": settings},
        **kill,
    }
    run = subprocess.run(
        [sys.executable, WORKER, json.dumps([options])], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert not (tmp_path / "killed").exists()
    saved = read_manifest(resume_folder(tmp_path / "killed"), "checkpoint", verify=True)
    assert 5 < saved["state"]["step"] < 9

    config = planted_config(settings)
    for out in ("killed", "undisturbed"):
        train("retriever", config, planted, tmp_path / out, group)
    assert_same_tensors(tensors(tmp_path / "killed"), tensors(tmp_path / "undisturbed"))
    assert history(tmp_path / "killed") == history(tmp_path / "undisturbed")
    assert not list(tmp_path.glob(".*")), "leftovers of the killed run"


def test_a_checkpoint_caught_between_two_renames_is_not_lost(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config, out = config_of(), tmp_path / "retriever"
    train("retriever", config, planted, out, group, stop_after_steps=7)
    newest = resume_folder(out)
    newest.rename(newest.with_name(f".{newest.name}.old"))
    recorder = Recorder()
    train("retriever", config, planted, out, group, stop_after_steps=9, progress=recorder)
    assert len(recorder.losses) == 2


def test_a_damaged_checkpoint_is_not_used_and_the_one_before_it_is(
    planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config, out = config_of(), tmp_path / "retriever"
    for stop in (1, 3, 5):
        train("retriever", config, planted, out, group, stop_after_steps=stop)
    kept = sorted(out.with_name("retriever.resume").iterdir())
    assert [folder.name for folder in kept] == ["step-000000003", "step-000000005"]
    damage(kept[1])
    recorder = Recorder()
    train("retriever", config, planted, out, group, stop_after_steps=6, progress=recorder)
    assert len(recorder.losses) == 3  # from step 3

    for folder in out.with_name("retriever.resume").iterdir():
        damage(folder)
    with pytest.raises(InputError, match=rf"{RESUME_FILE} .*removing .*retriever\.resume"):
        train("retriever", config, planted, out, group)


def damage(folder: Path) -> None:
    file = folder / RESUME_FILE
    file.write_bytes(file.read_bytes()[:-10] + b"0123456789")


@pytest.mark.parametrize("change", [{"seed": 2}, {"max_history": 4}])
def test_the_checkpoint_of_another_config_is_not_gone_on_from(
    change: dict[str, int], planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config, out = config_of(), tmp_path / "retriever"
    other = config.model_copy(update=change)
    train("retriever", config, planted, out, group, stop_after_steps=5)
    train("retriever", other, planted, out, group)
    train("retriever", other, planted, tmp_path / "fresh", group)
    assert_same_tensors(tensors(out), tensors(tmp_path / "fresh"))


def test_the_seed_alone_decides(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    for name, seed, drawn_before in (("a", 1, 0), ("b", 1, 5), ("c", 2, 0)):
        torch.manual_seed(drawn_before)
        train("retriever", config_of(epochs=1).model_copy(update={"seed": seed}), planted, tmp_path / name, group)
    assert_same_tensors(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    a, c = tensors(tmp_path / "a"), tensors(tmp_path / "c")
    assert all(not torch.equal(a[name], c[name]) for name in a if name.endswith(("start", "item.weight")))


class Toy:
    """Learns nothing of interest."""

    weights = MappingProxyType({"toy": 1.0})

    def __init__(self, data: Dataset):
        self.codes = ItemCodes.make(data.train_count_I, {}, torch.device("cpu"))

    def draw(self, batch: Batch, generator: torch.Generator) -> Drawn:
        return Drawn(self.codes.all())

    def counts(self, batch: Batch) -> Tensor:
        return torch.ones(1)

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        return ((found, part) for part in batch.split(sizes))

    def losses(self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int) -> Outcome:
        history = batch.ids["history"]
        time_M = torch.zeros(len(history.value_N) + len(history.length_B), dtype=torch.int64)
        return Outcome(self.loss(model(history, found["item"], time_M), found["item"])[None], {})

    def loss(self, hidden_MD: Tensor, item_CD: Tensor) -> Tensor:
        return hidden_MD.square().mean() + item_CD.square().mean()


def toy_job(data: Dataset, validate: Callable[[dict[str, Tensor]], dict[str, float]], learner: Toy | None = None) -> Job:
    """Validation is the test's."""
    return Job(
        name="toy",
        build=lambda: Retriever(SASRec(dim=4, blocks=1, heads=1), ItemTower(), data.num_items, {}, 5),
        learner=learner or Toy(data),
        balance=Fixed().build({"toy": 1.0}),
        loader=SequenceLoader(data, 4, 64, seed=1),
        validate=validate,
        main_metric="m",
    )


def run_toy(job: Job, out: Path, device: torch.device, **settings: Any) -> dict[str, Any]:
    return fit(
        job, Fit(warmup_steps=0, **settings), seed=1, device=device, out=out, identity={"part": "toy"}, progress=Recorder()
    )


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


def without_dropout(config: RunConfig) -> RunConfig:
    retriever = config.retriever.model_copy(update={"encoder": config.retriever.encoder.model_copy(update={"dropout": 0.0})})
    return config.model_copy(update={"retriever": retriever, "ranker": config.ranker.model_copy(update={"dropout": 0.0})})


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


def test_a_run_killed_when_its_time_was_up_still_has_a_model(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    """Between the checkpoint of the last step and the end of the validation."""

    def killed(state: dict[str, Tensor]) -> dict[str, float]:
        raise KeyboardInterrupt

    settings = {"epochs": 10**6, "max_minutes": 1e-9, "checkpoint_minutes": 0}
    with pytest.raises(KeyboardInterrupt):
        run_toy(toy_job(planted, killed), tmp_path / "killed", group, **settings)
    assert resume_folder(tmp_path / "killed").name == "step-000000001"
    for name in ("killed", "undisturbed"):
        manifest = run_toy(toy_job(planted, lambda _: {"m": 1.0}), tmp_path / name, group, **settings)
        assert (manifest["steps"], manifest["epochs"], manifest["best"]) == (1, 1, 1.0)
    assert_same_tensors(tensors(tmp_path / "killed"), tensors(tmp_path / "undisturbed"))


def test_a_run_that_began_from_other_parameters_is_not_gone_on_from(
    planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config = config_of(epochs=1)
    train("retriever", config, planted, tmp_path / "old", group)
    start, out = Start("old", tensors(tmp_path / "old")), tmp_path / "new"
    train("retriever", config, planted, out, group, start=start, stop_after_steps=2)
    for steps, options in ((1, {"start": start}), (3, {})):  # goes on from step 2; begins anew
        recorder = Recorder()
        train("retriever", config, planted, out, group, progress=recorder, stop_after_steps=3, **options)
        assert len(recorder.losses) == steps


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


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
