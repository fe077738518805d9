"""The whole chain through the command line, with the real MLflow store and the real BentoML server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipelines import models
from pipelines.export import GRAPHS
from pipelines.workspace import Workspace, config_path
from recsys import track
from recsys.batch import Batch, Ids
from recsys.config import RunConfig, load
from recsys.dataset import Dataset
from recsys.train.checkpoint import load_model_state
from recsys.train.distributed import place
from recsys.train.loop import MODEL_FILE
from serving.client import Client, ask
from serving.recommend import recommend as answer_offline
from serving.run import running_service
from serving.schema import Query

TOLERANCE = 1e-4
COMMANDS = [
    *(
        "simulate",
        "prepare",
        "train",
        "evaluate",
        "compare",
        "ablate",
        "export",
        "promote",
        "rollback",
        "serve",
        "recommend",
        "doctor",
        "demo",
        "data",
        "off-policy",
        "ids",
        "sync",
        "sweep",
        "reproduce",
        "depth",
        "skew",
        "keys",
    ),
]
SMALL = [
    *("--set", "retriever.fit.epochs=4", "--set", "retriever.encoder.dim=16"),
    *("--set", "ranker.fit.epochs=2", "--set", "ranker.fit.batch_size=128"),
]


def recsys(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "300", **(env or {})}, timeout=300
    )


class Chain:
    """A finished run in a temporary folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.workspace = Workspace(folder / "runs" / "demo")
        self.config: RunConfig = load(config_path("demo"), *SMALL[1::2])
        self.outputs: dict[str, subprocess.CompletedProcess[str]] = {}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = recsys(*words, cwd=self.folder)
        self.outputs[words[0]] = done
        return done


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    chain = Chain(tmp_path_factory.mktemp("chain"))
    for words in (
        ["simulate", "--users", "400", "--items", "150", "--events", "40000"],
        ["prepare", "--json", *SMALL],
        ["train", *SMALL],
        ["evaluate", "--json", *SMALL],
        ["export", "--json", *SMALL],
    ):
        done = chain.run(*words)
        assert done.returncode == 0, done.stderr
    return chain


@pytest.fixture(scope="module")
def url(chain: Chain) -> Iterator[str]:
    with running_service(chain.workspace.bundle) as url:
        yield url


def test_every_command_says_where_its_output_lies_and_what_comes_next(chain: Chain) -> None:
    following = {"simulate": "prepare", "prepare": "train", "train": "evaluate", "evaluate": "export", "export": "promote"}
    for command, after in following.items():
        assert "runs/demo/" in chain.outputs[command].stderr
        assert f"next: recsys {after}" in chain.outputs[command].stderr


def test_reports_are_json_for_machines(chain: Chain) -> None:
    prepared = json.loads(chain.outputs["prepare"].stdout)
    assert prepared["rows_read"] == 40_000
    metrics = json.loads(chain.outputs["evaluate"].stdout)
    assert set(metrics["retrieval"]["floor"]) == {"popularity", "item-knn", "transitions"}
    assert set(metrics["ranking"]["tasks"]) == {"click", "long_view", "like", "purchase"}
    assert metrics["ranking"]["tasks"]["click"]["AUC"] > 0.5
    assert json.loads(chain.outputs["export"].stdout)["version"] == 1


def test_the_training_run_keeps_the_report_on_its_data(chain: Chain) -> None:
    logged = {path.name: path.read_bytes() for path in chain.folder.glob("mlruns/**/artifacts/data/*")}
    assert logged == {path.name: path.read_bytes() for path in chain.workspace.data_report.iterdir()}
    assert set(logged) == {"quality.json", "report.html"}
    assert (
        json.loads(logged["quality.json"])["dataset"]["fingerprint"] == Dataset(chain.workspace.dataset).manifest["fingerprint"]
    )


def test_the_run_in_mlflow_has_a_parent_that_is_compared_and_a_child_for_each_stage(chain: Chain) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{chain.folder / 'mlruns' / 'mlflow.db'}"
    (parent,) = track.list_runs("recsys", uri=uri)
    assert parent.id == chain.workspace.run_id
    assert parent.name.startswith("demo 20")
    assert parent.status == "FINISHED"
    assert not [name for name in parent.metrics if name.split("/")[0] not in ("test", "floor", "slice", "export", "cost")]
    retriever = json.loads((chain.workspace.checkpoint("retriever") / "manifest.json").read_text())
    ranker = json.loads((chain.workspace.checkpoint("ranker") / "manifest.json").read_text())
    assert parent.metrics["cost/train_s"] == pytest.approx(retriever["seconds"] + ranker["seconds"])
    assert parent.metrics["cost/train_s/ranker"] == pytest.approx(ranker["seconds"])
    states = [load_file(chain.workspace.checkpoint(part) / MODEL_FILE) for part in ("retriever", "ranker")]
    assert parent.metrics["cost/parameters"] == sum(tensor.numel() for state in states for tensor in state.values())
    assert parent.metrics["cost/examples_per_s/retriever"] > 0
    stages = track.children(parent.id, uri=uri)
    assert [each.tags["stage"] for each in stages] == ["prepare", "retriever", "ranker", "evaluate", "export"]
    for each in stages:
        assert each.status == "FINISHED"
        assert {key: each.tags[key] for key in ("data", "commit", "lock", "config")} == {
            key: parent.tags[key] for key in ("data", "commit", "lock", "config")
        }
    for each in stages[1:]:
        assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(each.metrics)
    assert {"retriever/loss", "retriever/valid/NDCG@10"} <= set(stages[1].metrics)
    assert stages[0].metrics["data/rows_read"] == 40_000
    client = MlflowClient(uri)
    (read,) = client.get_run(parent.id).inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("demo", parent.tags["data"])
    assert json.loads(read.dataset.profile)["users"] == Dataset(chain.workspace.dataset).manifest["report"]["users"]
    assert [(tag.key, tag.value) for tag in read.tags] == [("mlflow.data.context", "training")]
    note = client.get_run(parent.id).data.tags["mlflow.note.content"]
    for said in (
        f"recsys reproduce {parent.id}",
        "best floor",
        f"{parent.metrics['test/NDCG@10']:.4f}",
        str(chain.workspace.bundle),
    ):
        assert said in note
    lock = track.artefact(parent.id, "environment/requirements.lock", uri=uri)
    assert lock is not None
    assert "torch==" in lock.read_text()
    assert yaml.safe_load(track.artefact(parent.id, "config.yaml", uri=uri).read_text()) == chain.config.model_dump(mode="json")
    assert not track.waiting(uri)


def test_a_stage_that_fails_shows_in_its_run_and_in_the_parent(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "dataset").symlink_to(chain.workspace.dataset)
    words = ["train", *SMALL, "--only", "retriever", "--workspace", str(tmp_path), "--store", f"sqlite:///{tmp_path}/mlflow.db"]
    done = recsys(*words, "--set", "retriever.fit.embedding_learning_rate=1e30", cwd=chain.folder)
    assert done.returncode == 2, done.stderr
    (parent,) = track.list_runs("recsys", uri=f"sqlite:///{tmp_path}/mlflow.db")
    below = track.children(parent.id, uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert (parent.status, [each.status for each in below]) == ("FAILED", ["FINISHED", "FAILED"])


def test_promotion_judges_by_parity_and_floor_and_compare_shows_the_run(chain: Chain) -> None:
    done = recsys("promote", "--json", cwd=chain.folder)
    decision = json.loads(done.stdout)
    assert done.returncode == (0 if decision["passed"] else 1)
    metrics = json.loads(chain.outputs["evaluate"].stdout)["retrieval"]
    gates = {gate["name"]: gate for gate in decision["gates"]}
    assert gates["parity"]["passed"]
    assert gates["bundle"]["passed"]
    least_gain = min(metrics["model"]["NDCG@10"] - means["NDCG@10"] for means in metrics["floor"].values())
    assert gates["floor"]["value"] < least_gain  # the lower end of its interval
    assert gates["floor"]["passed"] == (gates["floor"]["value"] > 0)
    assert gates["latency"]["value"] > 0
    assert 0.1 < gates["size"]["value"] < 100
    compared = json.loads(recsys("compare", "--json", "--metric", "test/NDCG*", cwd=chain.folder).stdout)
    assert compared["runs"][0]["metrics"]["test/NDCG@10"] == pytest.approx(metrics["model"]["NDCG@10"])


def test_torch_onnx_and_http_give_the_same_scores(chain: Chain, url: str, group: torch.device) -> None:
    """The bar of the trunk: for the same user, scores of the trained TorchRec models, of ONNX and of the endpoint agree."""
    config, data = chain.config, Dataset(chain.workspace.dataset)
    for user in np.argsort(data.length_U)[::-1][:4]:
        user_id = data.user_ids[user]
        served = ask(url, user_id=user_id, k=20, filter_seen=False)
        offline = answer_offline(_bundle(chain), Query(user_id=user_id, k=20, filter_seen=False)).model_dump()
        assert _close(served["items"], offline["items"])
        retrieval, probability = _torch_scores(chain, data, group, int(user), [item["item_id"] for item in served["items"]])
        for rank, item in enumerate(served["items"]):
            assert item["retrieval_score"] == pytest.approx(retrieval[rank], abs=TOLERANCE)
            assert list(item["tasks"].values()) == pytest.approx(probability[rank], abs=TOLERANCE)
            value = sum(config.value[task] * p for task, p in item["tasks"].items())
            assert item["score"] == pytest.approx(value, abs=TOLERANCE)


def test_a_user_without_history_gets_what_is_popular_with_users_like_them(chain: Chain, url: str) -> None:
    data, bundle = Dataset(chain.workspace.dataset), _bundle(chain)
    user = int(np.flatnonzero(data.length_U[2:] == 0)[0]) + 2
    served = ask(url, user_id=data.user_ids[user], k=20)
    offline = answer_offline(bundle, Query(user_id=data.user_ids[user], k=20)).model_dump()
    assert _close(served["items"], offline["items"])
    assert (served["flags"], served["fallback"]) == (["empty_history"], "segment")
    assert [item["item_id"] for item in served["items"]] == [bundle.item_id(item) for item in bundle.popular_with(user)[:20]]
    assert {item["source"] for item in served["items"]} == {"segment"}


def test_the_answer_excludes_what_was_seen_and_its_version_leads_to_its_lineage(chain: Chain, url: str) -> None:
    data = Dataset(chain.workspace.dataset)
    user = int(np.argmax(data.length_U))
    seen = {data.item_ids[item] for item in data.item_E[data.start_U[user] :][: data.length_U[user]]}
    found = ask(url, user_id=data.user_ids[user], k=50)
    assert len(found["items"]) == 50
    assert not seen & {item["item_id"] for item in found["items"]}
    info = Client(url).info()
    assert (found["model"], found["version"]) == (info.model, info.version)
    assert info.version == json.loads((chain.workspace.bundle / "manifest.json").read_text())["fingerprint"]
    assert info.lineage["data_fingerprint"] == data.manifest["data_fingerprint"]


def test_recommend_offline_and_through_the_endpoint(chain: Chain, url: str) -> None:
    item = Dataset(chain.workspace.dataset).item_ids[2]
    here = json.loads(recsys("recommend", "--history", str(item), "--k", "3", "--json", cwd=chain.folder).stdout)
    there = json.loads(recsys("recommend", "--history", str(item), "--k", "3", "--json", "--url", url, cwd=chain.folder).stdout)
    assert [each["item_id"] for each in here["items"]] == [each["item_id"] for each in there["items"]]


def test_a_new_dataset_makes_old_checkpoints_unusable_with_a_sentence(chain: Chain, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "retriever").symlink_to(chain.workspace.checkpoint("retriever"))
    (run / "ranker").symlink_to(chain.workspace.checkpoint("ranker"))
    other = ["--workspace", str(run), *SMALL, "--set", "data.split={kind: leave_one_out}"]
    assert recsys("prepare", "--data", str(chain.workspace.raw), *other, cwd=chain.folder).returncode == 0
    done = recsys("evaluate", *other, cwd=chain.folder)
    assert done.returncode == 2
    assert "was trained on another dataset" in done.stderr
    assert not (run / "metrics").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["prepare", "--data", "nowhere"], "nowhere is not a folder: name the folder of the raw logs with --data"),
        (
            ["train", "--config", "no-such"],
            "config 'no-such' is neither a file nor a shipped config: choose one of apao",
        ),
        (
            ["train", "--set", "retriever.fit.epoch=3"],
            "unknown key 'retriever.fit.epoch': choose from ['accumulate'",
        ),
        (["train", "--set", "retriever.loss.kind=hinge"], "'full_softmax', 'sampled_softmax'"),
        (["prepare", "--engine", "spark"], "--engine spark is unknown: choose one of"),
        (["prepare", "--address", "here:1"], "leave it out, or take --engine ray"),
        (["prepare", "--engine", "processes", "--workers", "0"], "--workers 0 does not fit --engine processes"),
        (["data", "diff", "runs/demo/dataset", "nowhere"], "nowhere holds no dataset: make it with `recsys prepare`"),
        (
            ["data", "report", "runs/demo"],
            "runs/demo holds no dataset: make it with `recsys prepare`, or name the right folder",
        ),
        (["data", "report", "runs/demo/dataset", "--html", "no/r.html"], "--html no/r.html cannot be written (No such file"),
        (
            ["data", "leaks", "runs/demo/raw"],
            "runs/demo/raw holds a 'raw' artefact where a dataset is needed: name another folder",
        ),
        (["train", "--set", "ranker.tasks={buy: 1}"], "ranker.tasks names the unknown task 'buy': choose from ['click'"),
        (["train", "--set", "retriever.fit.epochs"], "is not of the form section.key=value"),
        (["train", "--only", "both"], "--only 'both' is unknown: choose retriever, generator, policy or ranker"),
        (["train", "--workspace", "empty"], "holds no dataset: make it with `recsys prepare`"),
        (["serve", "--workspace", "empty"], "holds no bundle: make it with `recsys export`"),
        (["recommend", "--user", "u1", "--workspace", "empty"], "holds no bundle: make it with `recsys export`"),
        (
            ["recommend", "--user", "nobody", "--history", "i1"],
            "both of `user_id` and `history` given: send exactly one of them",
        ),
        (["recommend"], "neither of `user_id` and `history` given: send exactly one of them"),
        (["recommend", "--history", "i1", "--k", "0"], "k is 0"),
        (["recommend", "--history", "i1", "--k", "1000000000"], "k is 1000000000: ask for 1 to"),
        (["recommend", "--user", "u1", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
        (["simulate", "--items", "5"], "categories=20 is more than items=5"),
        (["demo", "--data", "nowhere"], "nowhere is not a folder"),
        (["compare", "nosuchrun"], "nosuchrun"),
    ],
)
def test_mistakes_end_with_one_sentence_and_exit_code_2(chain: Chain, words: list[str], sentence: str) -> None:
    before = sorted(chain.folder.rglob("manifest.json"))
    done = recsys(*words, cwd=chain.folder)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(chain.folder.rglob("manifest.json")) == before


def test_a_training_that_was_killed_goes_on_where_it_stopped(chain: Chain, tmp_path: Path) -> None:
    words = [
        "train",
        *SMALL,
        "--only",
        "retriever",
        "--workspace",
        str(tmp_path),
        "--set",
        "retriever.fit.checkpoint_minutes=0",
    ]
    words += ["--set", "retriever.fit.epochs=40", "--set", "retriever.fit.patience=40"]
    (tmp_path / "dataset").symlink_to(chain.workspace.dataset)
    process = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *words], cwd=chain.folder, stderr=subprocess.DEVNULL)
    state = tmp_path / "retriever.resume"
    deadline = time.monotonic() + 120
    while not list(state.glob("step-*/manifest.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "retriever").exists()
    done = recsys(*words, "--set", "retriever.fit.epochs=40", cwd=chain.folder)
    assert done.returncode == 0, done.stderr
    assert "retriever: going on from step" in done.stderr
    assert (tmp_path / "retriever" / "manifest.json").is_file()
    assert not state.exists()


def test_a_port_in_use_is_named(chain: Chain, url: str) -> None:
    port = url.rsplit(":", 1)[1]
    done = recsys("serve", "--port", port, cwd=chain.folder)
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in done.stderr


def test_an_artefact_of_another_format_version_is_refused(chain: Chain, tmp_path: Path) -> None:
    dataset = tmp_path / "run" / "dataset"
    dataset.mkdir(parents=True)
    manifest = json.loads((chain.workspace.dataset / "manifest.json").read_text()) | {"format_version": 99}
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    done = recsys("train", "--workspace", str(tmp_path / "run"), cwd=chain.folder)
    assert done.returncode == 2
    assert "has dataset format version 99, this recsys reads version 2: make it again with `recsys prepare`" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_half_written_artefact(chain: Chain, tmp_path: Path, stop: signal.Signals) -> None:
    out = tmp_path / "raw"
    words = ["simulate", "--events", "30000000", "--users", "100000", "--items", "20000", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words], cwd=chain.folder, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob(".raw.*.tmp/events/*/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in said
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_command_and_shows_examples() -> None:
    said = recsys("--help", cwd=Path.cwd()).stdout
    for command in COMMANDS:
        assert command in said
        assert "Example" in recsys(command, "--help", cwd=Path.cwd()).stdout or command == "doctor"


def _bundle(chain: Chain) -> Any:
    from serving.bundle.bundle import Bundle

    assert all((chain.workspace.bundle / name).is_file() for name in GRAPHS.values())
    return Bundle.load(chain.workspace.bundle)


def _close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    same_ids = [item["item_id"] for item in found] == [item["item_id"] for item in expected]
    return same_ids and np.allclose([item["score"] for item in found], [item["score"] for item in expected], atol=TOLERANCE)


def _torch_scores(
    chain: Chain, data: Dataset, device: torch.device, user: int, item_ids: list[str]
) -> tuple[list[float], list[list[float]]]:
    """Scores of the training forms, through TorchRec, for a user's whole timeline."""
    config = chain.config
    timeline = data.item_E[data.start_U[user] :][: data.length_U[user]].astype(np.int64)
    item_C = np.array([data.item_ids.index(item_id) for item_id in item_ids])

    retriever = place(models.retriever(config, data), device)
    load_model_state(retriever, load_file(chain.workspace.checkpoint("retriever") / MODEL_FILE))
    recent = timeline[-config.max_history :]
    times = torch.arange(len(recent) + 1)
    codes = models.item_codes(config, data)
    with torch.no_grad():
        item_ID = retriever.eval().item_vectors(retriever.embeddings(codes.all()), codes.known_I)
        hidden = retriever(Ids(torch.tensor(recent), torch.tensor([len(recent)])), item_ID, times)
        vectors = item_ID[torch.tensor(item_C)]

    ranker = place(models.ranker(config, data), device)
    load_model_state(ranker, load_file(chain.workspace.checkpoint("ranker") / MODEL_FILE))
    size = len(item_C)
    ones = torch.ones(size, dtype=torch.int64)
    recent = timeline[-config.ranker_history :]
    ids = {
        "user": Ids(ones * user, ones),
        "item": Ids(torch.tensor(item_C), ones),
        "history": Ids(torch.tensor(np.tile(recent, size)), ones * len(recent)),
    }
    for feature in data.features:
        if feature["owner"] == "context":
            ids[feature["name"]] = Ids(ones, ones)  # the unknown code: the request names no context
            continue
        rows = np.full(size, user) if feature["owner"] == "user" else item_C
        codes = data.codes(feature["name"], feature["owner"]).take(rows)
        ids[feature["name"]] = Ids(torch.tensor(codes.item_E.astype(np.int64)), torch.tensor(codes.lengths))
    category_I = data.codes("category", "item").item_E
    taste_C = [np.log1p(np.count_nonzero(category_I[timeline] == category_I[item])) for item in item_C]  # of all their clicks
    batch = Batch(ids, dense_BF=torch.tensor(taste_C, dtype=torch.float32)[:, None])
    with torch.no_grad():
        logit_BT = ranker.eval()(ranker.embeddings(ranker.look_ups(batch)), batch)
        return (vectors @ hidden[-1]).tolist(), logit_BT.sigmoid().tolist()
