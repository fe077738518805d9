"""Searches with real training on planted data: the planted best is found, bad trials end early, killed ones are tried again."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import torch
import yaml
from conftest import Cli, Done
from planted_data import planted_config, write_planted

from pipelines.ablation import run as ablation_run
from pipelines.progress import TrainingProgress
from pipelines.semantic_ids import build_ids
from pipelines.sweeping.search import EXPERIMENT
from pipelines.sweeping.study import counted, number_of
from pipelines.sweeping.trial import Outcome, Task, train_trial
from pipelines.sweeping.workers import train_in_processes
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
WORDS = ["sweep", "--config", "planted.yaml", "--workspace", "ws"]
EPOCHS = 6

Sweep = Callable[..., Done]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def write_run(folder: Path, **fit: Any) -> RunConfig:
    """A config and a workspace whose dataset is of it."""
    config = planted_config({"epochs": EPOCHS, "batch_size": 32, **fit})
    (folder / "planted.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    path = write_planted(folder / "ws" / "dataset").folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": config.data.model_dump(mode="json")}))
    return config


@pytest.fixture
def run(cli: Cli, one_group: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """`recsys sweep` in this process, in a folder with a config and its dataset."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    write_run(tmp_path)
    return lambda *words: cli(*WORDS, *words)


def runs_of(name: str) -> tuple[track.RunSummary, list[track.RunSummary]]:
    """The newest sweep of this name, and its trials by number."""
    parent = next(each for each in track.list_runs(EXPERIMENT) if each.tags.get("sweep") == name and "trial" not in each.tags)
    return parent, sorted(track.children(parent.id), key=lambda each: int(each.tags["trial"]))


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.absolute() / 'optuna.db'}")
    return sorted(counted(study.get_trials()), key=number_of)


def test_the_planted_best_is_found_tracked_and_judged_once(run: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Path] = []
    judge = ablation_run.judge

    def watched(config: RunConfig, data: Dataset, workspace: Any, *rest: Any) -> Any:
        judged.append(workspace.root)
        return judge(config, data, workspace, *rest)

    monkeypatch.setattr(ablation_run, "judge", watched)
    search = ["--search", f"retriever.fit: [{FROZEN}, {{learning_rate: 0.005}}]", "--name", "planted", "--seeds", "1"]
    done = run(*search, "--json")
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

    again = run(*search, "--json")
    assert json.loads(again.out) == found
    assert "going on with 2 of 20 trials done (2 complete, 0 pruned, 0 failed)" in again.said
    assert len(judged) == 2
    assert runs_of("planted")[0].id == parent.id


def test_a_bad_trial_ends_early_and_leaves_nothing_behind(run: Sweep) -> None:
    good = ", ".join(f"{{learning_rate: {rate}}}" for rate in (0.004, 0.005, 0.006, 0.007))
    slow = "{learning_rate: 1.0e-8, embedding_learning_rate: 1.0e-8}"
    done = run("--search", f"retriever.fit: [{good}, {FROZEN}, {slow}]", "--set", "seed=3", "--json")
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


class StopsAt:
    def __init__(self, epoch: int):
        self.epoch, self.heard = epoch, dict[int, float]()

    def stops(self, epoch: int, value: float) -> bool:
        self.heard[epoch] = value
        return epoch >= self.epoch

    def heartbeat(self) -> None: ...


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


def test_trials_that_fail_are_recorded_and_the_search_goes_on(run: Sweep) -> None:
    search = "retriever.fit.embedding_learning_rate: [1.0e+38, 0.1]"
    done = run("--search", search, "--set", "retriever.fit.epochs=1", "--name", "nan", "--json")
    assert not done.failed, done.said
    found = json.loads(done.out)
    assert found["counts"] == {"complete": 1, "pruned": 0, "failed": 1}
    failed = found["trials"][1]
    assert "retriever: the loss is nan at step" in failed["reason"]
    parent, trials = runs_of("nan")
    assert [(each.status, each.tags["state"]) for each in trials] == [("FINISHED", "complete"), ("FAILED", "failed")]
    assert trials[1].tags["reason"].startswith("InputError: retriever: ")
    assert parent.status == "FINISHED"


def test_settings_that_do_not_go_together_fail_without_training(run: Sweep) -> None:
    words = ["--search", "retriever.encoder.dim: [12, 16]", "--search", "retriever.encoder.heads: [2, 3]"]
    done = run(*words, "--set", "retriever.encoder.dim=12", "--set", "retriever.fit.epochs=1", "--json")
    assert not done.failed, done.said
    found = json.loads(done.out)
    assert found["counts"] == {"complete": 3, "pruned": 0, "failed": 1}
    failed = next(each for each in found["trials"] if each["state"] == "failed")
    assert failed["parameters"] == {"retriever.encoder.dim": 16, "retriever.encoder.heads": 3}
    assert "heads" in failed["reason"]


def test_when_nothing_works_the_first_reason_is_given(run: Sweep) -> None:
    search = "retriever.fit.embedding_learning_rate: {low: 1.0e+37, high: 1.0e+38}"
    done = run("--search", search, "--set", "retriever.fit.epochs=1", "--name", "bad", "--trials", "9")
    assert done.code == 2
    assert "error: 5 trials in a row failed, the first of them: retriever: " in done.said
    assert runs_of("bad")[0].status == "FAILED"
    few = run("--search", search, "--set", "retriever.fit.epochs=1", "--name", "bad", "--trials", "2")
    assert few.code == 2
    assert "error: none of the 2 trials could be trained; the first: retriever: " in few.said


def test_a_policy_begins_from_the_workspace_unless_its_settings_change_that(run: Sweep, group: torch.device) -> None:
    fit = {"epochs": 1, "batch_size": 32, "warmup_steps": 0, "embedding_learning_rate": 0.1}
    ids = {"quantizer": {"kind": "balanced_kmeans", "codes": 4, "levels": 2}, "limits": {"max_collision_rate": 1.0}}
    tree = yaml.safe_load(Path("planted.yaml").read_text())
    tree |= {
        "generator": {"ids": ids, "fit": fit, "beam": 10}, "serving": {"candidates": "generator"},
        "policy": {"parent": "generator", "proposals": {"count": 4}, "fit": fit},
    }  # fmt: skip
    Path("planted.yaml").write_text(yaml.safe_dump(tree))
    words = ["--search", "policy.fit.learning_rate: [0.001, 0.005]", "--trials", "2", "--json"]
    assert "error: ws/retriever holds no checkpoint: make it with `recsys train`" in run(*words).said
    config, workspace = load(Path("planted.yaml")), Workspace(Path("ws"))
    data, shown = Dataset(workspace.dataset), TrainingProgress(None, None)
    train_retriever(config, data, workspace.checkpoint("retriever"), device=group, progress=shown)
    build_ids(config, data, workspace)
    out = workspace.checkpoint("generator")
    train_generator(config, data, out, workspace=workspace, device=group, progress=shown)
    done = run(*words)
    assert done.code == 0, done.said
    found = json.loads(done.out)
    assert (found["metric"], found["counts"]["complete"]) == ("valid/NDCG@5", 2)
    folder = Path("ws/sweep/policy/trials") / f"trial-{found['best']['trial']:04}"
    assert not (folder / "generator").exists()
    assert (folder / "policy" / MANIFEST).exists()

    done = run("--search", "generator.ids.quantizer.codes: [5]", "--stage", "policy", "--name", "ids", "--seeds", "1", "--json")
    assert done.code == 0, done.said
    folder = Path("ws/sweep/ids/trials/trial-0000")
    assert {"semantic_ids", "generator", "policy"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "retriever").exists()
    assert set(json.loads(done.out)["seeds"]["each"]) == {"2"}


def start(folder: Path, store: str, *words: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, which can be killed."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]), "MLFLOW_TRACKING_URI": store, "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    log = (folder / "log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *WORDS, *words], cwd=folder, env=environment, stdout=log, stderr=log,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background has it ignored
    )  # fmt: skip


def wait_for(what: Callable[[], Any], log: Path, *, limit_s: float = 300) -> Any:
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_killed_workers_and_a_killed_command_lose_no_trial(run: Sweep, cli: Cli, tmp_path: Path, store: str) -> None:
    words = [
        "--search",
        "retriever.fit.learning_rate: {low: 1e-3, high: 1e-2}",
        "--trials",
        "4",
        "--prune",
        "none",
        "--name",
        "two",
    ]
    words += ["--set", "retriever.fit.epochs=30", "--set", "retriever.fit.patience=30"]
    log, folder = tmp_path / "log", tmp_path / "ws/sweep/two"
    with start(tmp_path, store, *words, "--workers", "2") as command:
        try:
            parent = psutil.Process(command.pid)
            wait_for(lambda: len(list(folder.glob("trials/*/retriever.resume/*"))) >= 2, log)  # both are training
            workers = [each for each in parent.children() if "spawn_main" in " ".join(each.cmdline())]
            assert len(workers) == 2
            workers[0].send_signal(signal.SIGKILL)
            wait_for(lambda: "its worker was killed by SIGKILL" in log.read_text(), log)
            wait_for(lambda: "after 30 epochs" in log.read_text(), log)
            wait_for(lambda: any(each.state.name == "RUNNING" for each in trials_of(folder)), log)
            left = parent.children()
            command.kill()
        finally:
            command.kill()
    psutil.wait_procs(left, timeout=60)
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in left)  # none is left alone

    before = trials_of(folder)
    finished = {number_of(each): each.values for each in before if each.state.name == "COMPLETE"}
    assert 1 <= len(finished) < 4
    done = run(*words, "--json")
    assert not done.failed, done.said
    assert "tried again, since they were stopped: trial " in done.said
    found = json.loads(done.out)
    assert found["counts"] == {"complete": 4, "pruned": 0, "failed": 0}
    assert {number: found_of(found, number)["valid"] for number in finished} == {n: v[0] for n, v in finished.items()}
    assert all(found_of(found, number_of(each))["parameters"] == each.params for each in before if each.params)
    trials = runs_of("two")[1]
    assert [each.tags["trial"] for each in trials] == [str(each["trial"]) for each in found["trials"]]
    assert {each.status for each in trials} == {"FINISHED"}
    # one that was killed in its midst has become what it would have been
    config = load(Path("planted.yaml"), "retriever.fit.epochs=30", "retriever.fit.patience=30")
    task, data = Task(0, "retriever", config, tmp_path / "plain"), Dataset(tmp_path / "ws/dataset")
    plain = train_trial(task, data, torch.device("cpu"), StopsAt(99))
    assert found["config_itself"]["valid"] == plain.value


def found_of(found: dict[str, Any], number: int) -> dict[str, Any]:
    return next(each for each in found["trials"] if each["trial"] == number)


def test_ctrl_c_ends_the_sweep_and_says_how_to_go_on(run: Sweep, tmp_path: Path, store: str) -> None:
    words = ["--search", "retriever.fit.learning_rate: {low: 1e-3, high: 1e-2}", "--name", "stopped"]
    words += ["--set", "retriever.fit.epochs=2000", "--set", "retriever.fit.patience=2000"]
    log = tmp_path / "log"
    with start(tmp_path, store, *words) as command:
        try:
            wait_for(lambda: list((tmp_path / "ws/sweep/stopped").glob("trials/*/retriever.resume/*")), log)
            command.send_signal(signal.SIGINT)
            assert command.wait(timeout=60) == 130
        finally:
            command.kill()
    said = " ".join(log.read_text().split())
    assert "stopped after 0 of 20 trials: the same command goes on from there" in said
    assert runs_of("stopped")[0].status == "KILLED"
    assert [each.status for each in runs_of("stopped")[1]] == ["KILLED"]


@dataclass
class Endless:
    """A source whose first trial never ends, until its first validation stops everything."""

    config: RunConfig
    folder: Path

    def next(self) -> Task | None:
        return Task(0, "retriever", self.config, self.folder / "trial")

    def stops(self, task: Task, epoch: int, value: float) -> bool:
        raise KeyboardInterrupt

    def tell(self, task: Task, outcome: Outcome) -> None:
        raise AssertionError(outcome)

    def lost(self, task: Task, how: str) -> None:
        raise AssertionError(how)


def test_workers_end_with_the_process_that_started_them(planted: Dataset, tmp_path: Path) -> None:
    config, alive = planted_config({"epochs": 5000, "patience": 5000}), tmp_path / "alive"
    with pytest.raises(KeyboardInterrupt):
        train_in_processes(Endless(config, tmp_path), planted.folder, workers=1, alive=alive)
    with alive.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more
    assert not (tmp_path / "trial" / "retriever").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "error: nothing to search: say --search"),
        (["--search", "retriever.fit.epochs: [1, 2]", "--trials", "0"], "error: --trials 0 is too few: say at least 1"),
        (["--search", "retriever.fit.epochs: [1, 2]", "--workers", "0"], "error: --workers 0 is too few"),
        (["--search", "retriever.fit.epochs: [1, 2]", "--seeds", "-1"], "error: --seeds -1 is too few: say at least 0"),
        (
            ["--search", "retriever.fit.epochs: [1, 2]", "--prune", "often"],
            "error: --prune 'often' is unknown: choose median, hyperband, none",
        ),
        (["--search", "retriever.fit.epochs: [1, 2]", "--name", "a/b"], "error: --name 'a/b' cannot be the name of a folder"),
        (
            ["--search", "generator.fit.epochs: [1, 2]", "--stage", "generator"],
            "error: --stage generator: this config trains ['retriever', 'ranker']; it has no `generator` section",
        ),
        (
            ["--search", "max_history: [5, 6]", "--stage", "policy"],
            "error: --stage policy: this config trains ['retriever', 'ranker']; it has no `policy` section",
        ),
        (["--search", "retriever.nice: [1]"], "unknown key 'retriever.nice': choose from"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(run: Sweep, words: list[str], says: str) -> None:
    done = run(*words)
    assert done.code == 2
    assert says in done.said
    assert "Traceback" not in done.said
    assert not Path("ws/sweep").exists()


def test_what_the_surroundings_forbid_is_refused(run: Sweep, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    search = ["--search", "retriever.fit.epochs: [1, 2]"]
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert "error: recsys sweep starts its own processes, by --workers: start it without torchrun" in run(*search).said
    done = cli("sweep", "--config", "planted.yaml", "--workspace", "empty", *search)
    assert "error: empty/dataset holds no dataset: make it with `recsys prepare`" in done.said
    folder = Path("ws/sweep/retriever")
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "error: another process is at the sweep in ws/sweep/retriever: wait for it, or" in run(*search).said
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert "error: ws/sweep/retriever cannot be written" in run(*search).said


def test_a_changed_search_is_refused_until_it_is_begun_anew(run: Sweep) -> None:
    short = ["--set", "retriever.fit.epochs=1", "--trials", "1"]
    assert not run("--search", "retriever.encoder.dim: [8, 16]", *short).failed
    for words, what in (
        (["--search", "retriever.encoder.dim: [8, 16, 24]", *short], "space"),
        (["--search", "retriever.encoder.dim: [8, 16]", *short, "--set", "seed=2"], "config"),
    ):
        done = run(*words)
        assert done.code == 2
        assert f"the sweep in ws/sweep/retriever was begun with another {what}: choose another --name, or --anew" in done.said
    assert not run("--search", "retriever.encoder.dim: [8, 16, 24]", *short, "--anew").failed
    assert len(trials_of(Path("ws/sweep/retriever"))) == 1
    assert not run("--search", "retriever.encoder.dim: [8, 16, 24]", "--set", "retriever.fit.epochs=1", "--trials", "2").failed
    assert len(trials_of(Path("ws/sweep/retriever"))) == 2
