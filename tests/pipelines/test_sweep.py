"""Searches with real training on planted data: the planted best is found, bad trials end early, failed ones are recorded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Cli
from planted_data import planted_config
from sweep_world import EPOCHS, StopsAt, runs_of

from pipelines.ablation import run as ablation_run
from pipelines.progress import TrainingProgress
from pipelines.semantic_ids import build_ids
from pipelines.sweeping.trial import Task, train_trial
from pipelines.train import train_generator, train_retriever
from pipelines.workspace import Workspace
from recsys import track
from recsys.artefact import MANIFEST
from recsys.config import RunConfig, load
from recsys.dataset import Dataset

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
FROZEN = "{learning_rate: 1.0e-9, embedding_learning_rate: 1.0e-9}"


def test_the_planted_best_is_found_tracked_and_judged_once(sweep: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Path] = []
    judge = ablation_run.judge

    def watched(config: RunConfig, data: Dataset, workspace: Any, *rest: Any) -> Any:
        judged.append(workspace.root)
        return judge(config, data, workspace, *rest)

    monkeypatch.setattr(ablation_run, "judge", watched)
    search = ["--search", f"retriever.fit: [{FROZEN}, {{learning_rate: 0.005}}]", "--name", "planted", "--seeds", "1"]
    done = sweep(*search, "--json")
    assert not done.failed, done.said
    found = json.loads(done.out)
    folder = Path("ws/sweep/planted")
    assert json.loads((folder / "sweep.json").read_text()) == found
    assert found["counts"] == {"complete": 2, "pruned": 0, "failed": 0}  # and no more: there are two points
    assert found["best"]["trial"] == found["config_itself"]["trial"] == 0
    assert found["best"]["valid"] > 2 * found["trials"][1]["valid"]
    assert found["best"]["parameters"] == {"retriever.fit": {"learning_rate": 0.005}}
    assert load(folder / "best.yaml") == load(Path("planted.yaml"), *found["best"]["set"])
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "the best of 2 trials was chosen by its validation value, which flatters it" in done.said

    assert judged == [folder / "trials/trial-0000", folder / "seeds/trial-0000/seed-2"]
    assert set(found["seeds"]["each"]) == {"2"}
    assert found["seeds"]["test"]["NDCG@5"]["mean"] == found["seeds"]["each"]["2"]["test"]["NDCG@5"]
    assert not (folder / "trials/trial-0001").exists()  # only the best model is kept

    parent, trials = runs_of("planted")
    assert [each.tags["state"] for each in trials] == ["complete", "complete"]
    assert {each.status for each in (parent, *trials)} == {"FINISHED"}
    assert [each.metrics["best/valid/NDCG@5"] for each in trials] == [each["valid"] for each in found["trials"]]
    assert trials[1].params["retriever.fit.learning_rate"] == "1e-09"
    assert len(track.metric_histories([trials[0].id], "retriever/valid/NDCG@5")[trials[0].id]) == EPOCHS
    assert parent.metrics["test/NDCG@5"] == found["test"]["NDCG@5"]
    assert not any(name.startswith("test/") for each in trials for name in each.metrics)
    assert track.artefact(parent.id, "best.yaml") is not None

    again = sweep(*search, "--json")
    assert json.loads(again.out) == found
    assert "going on with 2 of 20 trials done (2 complete, 0 pruned, 0 failed)" in again.said
    assert len(judged) == 2
    assert runs_of("planted")[0].id == parent.id


def test_a_bad_trial_ends_early_and_leaves_nothing_behind(sweep: Cli) -> None:
    good = ", ".join(f"{{learning_rate: {rate}}}" for rate in (0.004, 0.005, 0.006, 0.007))
    slow = "{learning_rate: 1.0e-8, embedding_learning_rate: 1.0e-8}"
    done = sweep("--search", f"retriever.fit: [{good}, {FROZEN}, {slow}]", "--set", "seed=3", "--json")
    assert not done.failed, done.said
    found = json.loads(done.out)
    assert sum(found["counts"].values()) == 6
    pruned = [each for each in found["trials"] if each["state"] == "pruned"]
    assert pruned
    for each in pruned:
        assert each["parameters"]["retriever.fit"]["learning_rate"] < 1e-7
        assert each["epochs"] < EPOCHS
        assert len(each["curve"]) == each["epochs"]
        assert "is too low beside the other trials" in each["reason"]
        assert not Path(f"ws/sweep/retriever/trials/trial-{each['trial']:04}").exists()
        summary = track.get_run(each["run_id"])
        assert (summary.status, summary.tags["state"]) == ("FINISHED", "pruned")
        curve = track.metric_histories([each["run_id"]], "retriever/valid/NDCG@5")[each["run_id"]]
        assert len(curve) == each["epochs"]
    assert found["importance"] == {"retriever.fit": 1.0}


@pytest.mark.parametrize("stage", ["retriever", "ranker"])
def test_pruning_ends_the_loop_without_an_artefact(stage: str, planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config = planted_config({"epochs": 5, "batch_size": 64})
    judge = StopsAt(2)
    outcome = train_trial(Task(7, stage, config, tmp_path / "trial"), planted, group, judge)
    assert (outcome.state, outcome.epochs, outcome.value) == ("pruned", 2, judge.heard[2])
    assert list(judge.heard) == [1, 2]
    assert not (tmp_path / "trial" / stage).exists()
    whole = train_trial(Task(7, stage, config, tmp_path / "trial"), planted, group, StopsAt(99))
    assert (whole.state, whole.epochs) == ("complete", 5)
    assert (tmp_path / "trial" / stage / MANIFEST).exists()


def test_trials_that_fail_are_recorded_and_the_search_goes_on(sweep: Cli) -> None:
    search = "retriever.fit.embedding_learning_rate: [1.0e+38, 0.1]"
    done = sweep("--search", search, "--set", "retriever.fit.epochs=1", "--name", "nan", "--json")
    assert not done.failed, done.said
    found = json.loads(done.out)
    assert found["counts"] == {"complete": 1, "pruned": 0, "failed": 1}
    failed = found["trials"][1]
    assert "retriever: the loss is nan at step" in failed["reason"]
    parent, trials = runs_of("nan")
    assert [(each.status, each.tags["state"]) for each in trials] == [("FINISHED", "complete"), ("FAILED", "failed")]
    assert trials[1].tags["reason"].startswith("InputError: retriever: ")
    assert parent.status == "FINISHED"


def test_settings_that_do_not_go_together_fail_without_training(sweep: Cli) -> None:
    words = ["--search", "retriever.encoder.dim: [12, 16]", "--search", "retriever.encoder.heads: [2, 3]"]
    done = sweep(*words, "--set", "retriever.encoder.dim=12", "--set", "retriever.fit.epochs=1", "--json")
    assert not done.failed, done.said
    found = json.loads(done.out)
    assert found["counts"] == {"complete": 3, "pruned": 0, "failed": 1}
    failed = next(each for each in found["trials"] if each["state"] == "failed")
    assert failed["parameters"] == {"retriever.encoder.dim": 16, "retriever.encoder.heads": 3}
    assert "heads" in failed["reason"]


def test_when_nothing_works_the_first_reason_is_given(sweep: Cli) -> None:
    search = "retriever.fit.embedding_learning_rate: {low: 1.0e+37, high: 1.0e+38}"
    done = sweep("--search", search, "--set", "retriever.fit.epochs=1", "--name", "bad", "--trials", "9")
    assert done.code == 2
    assert "error: 5 trials in a row failed, the first of them: retriever: " in done.said
    assert runs_of("bad")[0].status == "FAILED"
    few = sweep("--search", search, "--set", "retriever.fit.epochs=1", "--name", "bad", "--trials", "2")
    assert few.code == 2
    assert "error: none of the 2 trials could be trained; the first: retriever: " in few.said


def test_a_policy_begins_from_the_workspace_unless_its_settings_change_that(sweep: Cli, group: torch.device) -> None:
    fit = {"epochs": 1, "batch_size": 32, "warmup_steps": 0, "embedding_learning_rate": 0.1}
    ids = {"quantizer": {"kind": "balanced_kmeans", "codes": 4, "levels": 2}, "limits": {"max_collision_rate": 1.0}}
    tree = yaml.safe_load(Path("planted.yaml").read_text())
    tree |= {
        "generator": {"ids": ids, "fit": fit, "beam": 10}, "serving": {"candidates": "generator"},
        "policy": {"parent": "generator", "proposals": {"count": 4}, "fit": fit},
    }  # fmt: skip
    Path("planted.yaml").write_text(yaml.safe_dump(tree))
    words = ["--search", "policy.fit.learning_rate: [0.001, 0.005]", "--trials", "2", "--json"]
    assert "error: ws/retriever holds no checkpoint: make it with `recsys train`" in sweep(*words).said
    config, workspace = load(Path("planted.yaml")), Workspace(Path("ws"))
    data, shown = Dataset(workspace.dataset), TrainingProgress(None, None)
    train_retriever(config, data, workspace.checkpoint("retriever"), device=group, progress=shown)
    build_ids(config, data, workspace)
    out = workspace.checkpoint("generator")
    train_generator(config, data, out, workspace=workspace, device=group, progress=shown)
    done = sweep(*words)
    assert done.code == 0, done.said
    found = json.loads(done.out)
    assert (found["metric"], found["counts"]["complete"]) == ("valid/NDCG@5", 2)
    folder = Path("ws/sweep/policy/trials") / f"trial-{found['best']['trial']:04}"
    assert not (folder / "generator").exists()
    assert (folder / "policy" / MANIFEST).exists()

    done = sweep(
        "--search", "generator.ids.quantizer.codes: [5]", "--stage", "policy", "--name", "ids", "--seeds", "1", "--json"
    )
    assert done.code == 0, done.said
    folder = Path("ws/sweep/ids/trials/trial-0000")
    assert {"semantic_ids", "generator", "policy"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "retriever").exists()
    assert set(json.loads(done.out)["seeds"]["each"]) == {"2"}
