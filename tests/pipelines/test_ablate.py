"""Real training on planted and simulated data: same data and seeds, kept and gone on with, differences shown where they are."""

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import Cli
from planted_data import planted_config

from pipelines.ablation import ablate
from pipelines.ablation.ablate import Runs, run_variants
from pipelines.ablation.report import _row_metric, difference, result
from pipelines.ablation.table import markdown
from pipelines.ablation.values import ALL, SLICE
from pipelines.ablation.variants import BASE, Plan
from pipelines.evaluate import evaluate_run
from pipelines.train import train_retriever
from pipelines.workspace import Workspace
from recsys import track
from recsys.artefact import read_manifest
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.metrics.classification import auc, gauc
from recsys.metrics.probability import log_loss
from recsys.metrics.slices import ITEM_SLICES, USER_SLICES

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
FROZEN = {"learning_rate": 1e-9, "embedding_learning_rate": 1e-9, "epochs": 1}


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def config_with(part: str, fit: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
    tree = planted_config({"epochs": 6, "batch_size": 32}).model_dump(mode="json", exclude_unset=True)
    tree[part] |= changes
    tree[part]["fit"] |= fit or {}
    return RunConfig.model_validate(tree)


RETRIEVERS = {
    BASE: config_with("retriever"),
    "frozen": config_with("retriever", FROZEN),
    "same": config_with("retriever", {"checkpoint_minutes": 9.0}),  # a setting that no result depends on
}
RANKERS = {
    BASE: config_with("ranker", {"epochs": 5, "batch_size": 16}),
    "frozen": config_with("ranker", FROZEN),
}


def run(variants: dict[str, RunConfig], data: Dataset, root: Path, device: torch.device, **options: Any) -> Runs:
    settings = {"stage": "retriever", "seeds": [1, 2], "experiment": None, **options}
    return run_variants(variants, data, folder=lambda name: root / name, device=device, **settings)


@pytest.fixture(scope="module")
def retrievers(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runs, Path]:
    root = tmp_path_factory.mktemp("ablation")
    return run(RETRIEVERS, planted, root, group), root


def found_in(runs: Runs, config: RunConfig, stage: str, variants: dict[str, RunConfig]) -> dict[str, Any]:
    return result(Plan(stage, f"{stage}.test", variants), runs, [1, 2], config, "planted")


class TestRetriever:
    @pytest.fixture
    def found(self, retrievers: tuple[Runs, Path]) -> dict[str, Any]:
        return found_in(retrievers[0], RETRIEVERS[BASE], "retriever", RETRIEVERS)

    def test_a_model_that_learns_nothing_is_shown_to_be_worse(self, found: dict[str, Any]) -> None:
        for metric in ("NDCG@5", "HR@5"):
            gap = found["variants"]["frozen"]["slices"][ALL][metric]["difference"]
            assert gap["shown"]
            assert gap["agree"] == 2
            assert gap["low"] <= gap["mean"] <= gap["high"] < 0
        assert "seeds worse**" in markdown(found)

    def test_the_same_model_is_no_different_at_all(self, found: dict[str, Any]) -> None:
        for metrics in found["variants"]["same"]["slices"].values():
            for entry in metrics.values():
                gap = entry["difference"]
                assert (gap["mean"], gap["low"], gap["high"], gap["shown"]) == (0, 0, 0, False)
        assert "| same | " in markdown(found)
        assert " | equal | " in markdown(found)
        assert found["variants"]["same"]["settings"] == {
            "retriever.fit": RETRIEVERS["same"].retriever.fit.model_dump(mode="json")
        }

    def test_the_slices_are_those_of_the_users_and_their_targets(
        self, retrievers: tuple[Runs, Path], found: dict[str, Any]
    ) -> None:
        table = retrievers[0].trained[BASE][0].values
        users = {name: set(table.filter(pl.col(SLICE) == name)["user"]) for name in (ALL, *ITEM_SLICES, *USER_SLICES)}
        assert users["cold"] | users["warm"] == users[ALL]
        assert not users["cold"] & users["warm"]
        assert sum(len(users[name]) for name in ITEM_SLICES) == len(users[ALL])  # one target each
        sliced = found["variants"][BASE]["slices"]
        for names in (ITEM_SLICES, USER_SLICES):
            parts = [sliced[name]["NDCG@5"] for name in names if name in sliced]
            mean = sum(each["mean"] * each["users"] for each in parts) / sum(each["users"] for each in parts)
            assert mean == pytest.approx(sliced[ALL]["NDCG@5"]["mean"])

    def test_the_means_are_those_of_evaluation(self, planted: Dataset, retrievers: tuple[Runs, Path]) -> None:
        runs, root = retrievers
        plain = {"events": {"path": "-", "user": "u", "item": "i"}}  # without labels there is no ranker to judge
        config = RunConfig.model_validate(RETRIEVERS[BASE].model_dump(mode="json") | {"data": plain, "seed": 1})
        judged = evaluate_run(config, planted, Workspace(root / BASE / "seed-1"))["retrieval"]
        tested = runs.trained[BASE][0].facts["test"]
        assert judged["users"] == len(runs.trained[BASE][0].values.filter(pl.col(SLICE) == ALL))
        # What is beyond accuracy is not ablated.
        model = {name: value for name, value in judged["model"].items() if name in tested}
        assert {"NDCG@5", "MAP@10", "coverage@5"} < set(model)
        assert {name: tested[name] for name in model} == pytest.approx(model)
        assert {name: tested[name] for name in judged["health"]} == pytest.approx(judged["health"])

    def test_the_cost_is_told(self, found: dict[str, Any]) -> None:
        assert found["variants"][BASE]["step_ratio"] == 1
        assert all(each["step_ms"][0] > 0 and each["step_ratio"] > 0 for each in found["variants"].values())
        assert found["variants"]["frozen"]["epochs"] == [1, 1]

    def test_vectors_are_judged(self, found: dict[str, Any]) -> None:
        learned, frozen = (found["variants"][name]["health"] for name in (BASE, "frozen"))
        assert learned["alignment"] < frozen["alignment"]
        assert 1 <= learned["rankme"] <= 16

    def test_the_result_is_json(self, found: dict[str, Any]) -> None:
        assert json.loads(json.dumps(found, allow_nan=False)) == found


class TestGoingOn:
    def test_what_is_finished_is_not_trained_again(
        self, planted: Dataset, group: torch.device, retrievers: tuple[Runs, Path], trainings: Counter[str]
    ) -> None:
        again = run(RETRIEVERS, planted, retrievers[1], group)
        assert not trainings
        for name, runs in retrievers[0].trained.items():
            for before, after in zip(runs, again.trained[name], strict=True):
                assert before.values.equals(after.values)
                assert before.facts == after.facts

    def test_another_seed_or_setting_is_trained_and_nothing_else(
        self, planted: Dataset, group: torch.device, tmp_path: Path, trainings: Counter[str]
    ) -> None:
        variants = {BASE: config_with("retriever", FROZEN), "a": config_with("retriever", FROZEN, loss={"kind": "bpr"})}
        run(variants, planted, tmp_path, group, seeds=[1])
        trainings.clear()
        changed = {**variants, "a": config_with("retriever", FROZEN, loss={"kind": "gbce"})}
        run(changed, planted, tmp_path, group, seeds=[1, 2])
        assert set(trainings) == {"a/seed-1/retriever", "base/seed-2/retriever", "a/seed-2/retriever"}

    def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(
        self, planted: Dataset, group: torch.device, retrievers: tuple[Runs, Path], tmp_path: Path
    ) -> None:
        config = RETRIEVERS[BASE].model_copy(update={"seed": 2})
        out = tmp_path / BASE / "seed-2" / "retriever"
        train_retriever(config, planted, out, device=group, progress=Silent(), stop_after_steps=7)
        assert list(out.with_name("retriever.resume").iterdir())
        gone_on = run({name: RETRIEVERS[name] for name in (BASE, "frozen")}, planted, tmp_path, group, seeds=[2])
        whole = read_manifest(retrievers[1] / BASE / "seed-2" / "retriever", "checkpoint")
        assert read_manifest(out, "checkpoint")["files"]["model.safetensors"] == whole["files"]["model.safetensors"]
        assert gone_on.trained[BASE][0].values.equals(retrievers[0].trained[BASE][1].values)

    def test_what_training_refuses_is_left_out_with_the_reason_and_the_base_is_not(
        self, planted: Dataset, group: torch.device, tmp_path: Path
    ) -> None:
        timeless = Dataset(planted.folder)
        timeless.manifest["has_time"] = False
        hstu = config_with("retriever", FROZEN, encoder={"kind": "hstu", "dim": 16, "blocks": 1, "heads": 2})
        variants = {
            BASE: config_with("retriever", FROZEN),
            "hstu": hstu,
            "bpr": config_with("retriever", FROZEN, loss={"kind": "bpr"}),
        }
        runs = run(variants, timeless, tmp_path, group)
        assert set(runs.trained) == {BASE, "bpr"}
        assert "reads when events happened, which this log does not say" in runs.refused["hstu"]
        found = found_in(runs, variants[BASE], "retriever", variants)
        assert f"left out: hstu: {runs.refused['hstu']}" in markdown(found)
        with pytest.raises(InputError, match="reads when events happened"):
            run({BASE: hstu, "bpr": variants["bpr"]}, timeless, tmp_path / "other", group)
        with pytest.raises(InputError, match="no variant could be trained: hstu: "):
            run({name: variants[name] for name in (BASE, "hstu")}, timeless, tmp_path, group)


class TestRanker:
    @pytest.fixture(scope="class")
    def found(self, planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        runs = run(RANKERS, planted, tmp_path_factory.mktemp("rankers"), group, stage="ranker")
        return found_in(runs, RANKERS[BASE], "ranker", RANKERS)

    def test_each_task_has_its_metrics(self, found: dict[str, Any]) -> None:
        assert found["metrics"] == [f"{name}/{task}" for task in ("click", "like") for name in ("AUC", "GAUC", "LogLoss")]
        assert set(found["variants"][BASE]["slices"]["cold"]) == {"AUC/click", "AUC/like"}

    def test_a_model_that_learns_nothing_is_shown_to_be_worse_by_either_direction(self, found: dict[str, Any]) -> None:
        gaps = {name: entry["difference"] for name, entry in found["variants"]["frozen"]["slices"][ALL].items()}
        assert gaps["AUC/click"]["high"] < 0 < gaps["LogLoss/click"]["low"]
        assert gaps["AUC/click"]["shown"]
        assert gaps["LogLoss/click"]["shown"]
        page = markdown(found)
        assert page.count("seeds worse**") >= 2
        assert "nan" not in page

    @pytest.mark.parametrize("metric", ["AUC", "GAUC", "LogLoss", "RMSE"])
    def test_everybody_drawn_once_gives_the_metric_itself(self, metric: str) -> None:
        random = np.random.default_rng(0)
        score_N, label_N, user_N = random.random(60), random.integers(0, 2, 60).astype(float), np.arange(60) % 7
        value, drawn_R = _row_metric(metric, score_N, label_N, user_N, np.ones((1, 7), np.int32))
        wanted = {
            "AUC": auc(score_N, label_N), "GAUC": gauc(score_N, label_N, user_N), "LogLoss": log_loss(score_N, label_N),
            "RMSE": np.sqrt(((score_N - label_N) ** 2).mean()),
        }  # fmt: skip
        assert value == pytest.approx(wanted[metric])
        assert drawn_R == pytest.approx([wanted[metric]])


@pytest.mark.parametrize(
    ("gap_S", "gap_R", "users", "shown", "agree"),
    [
        ([0.2, 0.3], [0.2, 0.3], 30, True, 2),
        ([0.2, 0.3], [0.2, 0.3], 29, False, 2),  # too few users to trust the interval
        ([0.2, 0.3], [-0.1, 0.3], 99, False, 2),
        ([-0.1, -0.5, 0.2], [-0.3, -0.2], 99, True, 2),
        ([0.0, 0.0], [0.0, 0.0], 99, False, 2),
        ([0.2, 0.2], [np.nan, np.nan], 99, False, 2),
    ],
)
def test_a_difference_is_shown_where_the_interval_leaves_out_zero(
    gap_S: list[float], gap_R: list[float], users: int, shown: bool, agree: int
) -> None:
    found = difference(np.array(gap_S), np.array(gap_R), users)
    assert found["mean"] == pytest.approx(np.mean(gap_S))
    assert (found["shown"], found["agree"]) == (shown, agree)
    assert found["low"] <= found["high"]


SMALL = ("--set", "retriever.fit.epochs=1", "--set", "retriever.encoder.dim=8", "--set", "retriever.fit.batch_size=16")


def test_the_command_trains_tracks_and_writes_its_tables(
    cli: Cli, trainings: Counter[str], group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablate, "process_group", lambda: nullcontext(group))  # a process can join one only
    for words in (["simulate", "--users", "80", "--items", "40", "--events", "6000"], ["prepare"]):
        assert not cli(*words).failed
    words = ["ablate", "--over", "similarity", "--variant", "wide: {retriever.encoder.dim: 16}", "--seeds", "2", *SMALL]
    done = cli(*words, "--json")
    assert not done.failed, done.said
    found = json.loads(done.out)
    assert list(found["variants"]) == [BASE, "cosine", "wide"]
    assert len(trainings) == 6
    folder = Path("runs/demo/ablation/retriever.similarity")
    assert json.loads((folder / "ablation.json").read_text()) == found
    assert (folder / "ablation.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "ablation.md").read_text()
    assert "| cosine |" in page
    assert "`{'retriever.similarity': {'kind': 'cosine', 'temperature': 0.05}}`" in page
    assert "in runs/demo/ablation/retriever.similarity" in done.said

    runs = track.list_runs(ablate.EXPERIMENT)
    trained = [run for run in runs if "variant" in run.tags]
    assert len(runs) == 7  # and one that holds the tables
    assert {(run.tags["variant"], run.tags["seed"]) for run in trained} == {
        (name, seed) for name in found["variants"] for seed in ("1", "2")
    }
    entry = found["variants"]["wide"]["slices"][ALL]["NDCG@10"]
    logged = [run.metrics["test/NDCG@10"] for run in trained if run.tags["variant"] == "wide"]
    assert sorted(logged) == pytest.approx(sorted(entry["seeds"]))
    assert all({"test/rankme", "retriever/valid/rankme", "step_ms"} <= set(run.metrics) for run in trained)
    assert len({run.tags[track.DATA] for run in runs}) == len({run.tags[track.PROTOCOL] for run in runs}) == 1

    trainings.clear()
    again = cli(*words, "--json")
    assert not trainings
    assert json.loads(again.out) == found
    assert not cli("ablate", "--over", "loss", "--seeds", "1", *SMALL).failed
    assert not any("base" in name for name in trainings)  # the base of one ablation is that of all
    assert trainings


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--over", "noise"], "error: --over noise is no family of the config: choose one of retriever: encoder, "),
        (["--over", "denoise", "--seeds", "0"], "error: --seeds 0 trains nothing: say at least 1"),
        (
            ["--over", "denoise", "--stage", "both"],
            "error: --stage 'both' is unknown: choose retriever, generator, policy or ranker",
        ),
        (["--variant", "a: {retriever.denoise: {kind: nice}}"], "error: variant a: "),
        ([], "error: nothing to compare with the base: say --over FAMILY"),
        (["--over", "denoise"], "error: runs/demo/dataset holds no dataset: make it with `recsys prepare`"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(cli: Cli, words: list[str], says: str) -> None:
    done = cli("ablate", *words)
    assert done.code == 2
    assert says in done.said
    assert "Traceback" not in done.said
    assert not list(Path("runs").glob("demo/ablation/*")) if Path("runs").exists() else True
