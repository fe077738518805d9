"""The whole chain through the command line, with the real MLflow store: its words, reports, runs and promotion."""

import json
from pathlib import Path

import pytest
import yaml
from chain_world import Chain, recsys
from safetensors.torch import load_file

from recsys import track
from recsys.dataset import Dataset
from recsys.train.loop import MODEL_FILE

COMMANDS = (
    "simulate", "prepare", "train", "evaluate", "compare", "ablate", "export", "promote", "rollback", "serve",
    "recommend", "doctor", "demo", "data", "off-policy", "ids", "sync", "sweep", "reproduce", "depth", "skew", "keys",
    "daily", "schedule", "status", "forget",
)  # fmt: skip


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


def test_help_names_every_command_and_shows_examples() -> None:
    said = recsys("--help", cwd=Path.cwd()).stdout
    for command in COMMANDS:
        assert command in said
        assert "Example" in recsys(command, "--help", cwd=Path.cwd()).stdout or command == "doctor"
