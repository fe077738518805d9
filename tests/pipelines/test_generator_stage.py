"""`recsys ids`, `train` and `evaluate` with a generator and a policy that goes on from it, from the command line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
import torch
from conftest import Cli
from safetensors.torch import load_file

from recsys.artefact import read_manifest

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"), pytest.mark.filterwarnings("ignore::UserWarning"),
]  # fmt: skip
CONFIG = """
extends: {demo}
name: shop
max_history: 8
retriever:
  encoder: {{dim: 8, feed_forward: 1}}
  fit: {{epochs: 1, batch_size: 32}}
generator:
  ids: {{quantizer: {{kind: balanced_kmeans, levels: 2, codes: 4}}, limits: {{max_collision_rate: 1.0}}}}
  decoder: {{heads: 1}}
  fit: {{epochs: 1, batch_size: 32}}
  beam: 10
policy:
  parent: generator
  proposals: {{count: 4}}
  fit: {{epochs: 1, batch_size: 32}}
ranker: {{dim: 4, sharing: {{experts: 2, hidden: 4}}, fit: {{epochs: 1, batch_size: 512}}}}
evaluation: {{ks: [5, 10]}}
serving: {{num_candidates: 10, candidates: generator}}
"""
RETRIEVER_TOO = ["--set", "retriever.validation_too=true", "--set", "retriever.fit.keep=last"]


@pytest.fixture(autouse=True)
def one_group(group: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in this process, which has its group already."""

    @contextmanager
    def joined() -> Iterator[torch.device]:
        yield group

    monkeypatch.setattr("recsys.train.distributed.process_group", joined)


def prepared(cli: Cli, tmp_path: Path, workspace: str = "ws") -> list[str]:
    """Words that name the run."""
    from pipelines.workspace import CONFIGS

    (tmp_path / "shop.yaml").write_text(CONFIG.format(demo=CONFIGS / "demo.yaml"))
    if not (tmp_path / "raw").exists():
        made = cli("simulate", "--users", "80", "--items", "40", "--events", "6000", "--out", "raw")
        assert made.code == 0, made.said
    words = ["--config", "shop.yaml", "--workspace", workspace]
    done = cli("prepare", *words, "--data", "raw")
    assert done.code == 0, done.said
    return words


def test_the_chain_from_ids_to_metrics(cli: Cli, tmp_path: Path) -> None:
    words = prepared(cli, tmp_path)
    stored = [*words, "--store", f"sqlite:///{tmp_path / 'm.db'}"]
    early = cli("train", *stored, "--only", "generator")
    assert early.code == 2
    assert "retriever holds no checkpoint: make it with `recsys train`" in early.said
    made = cli("ids", *stored, "--json")
    assert made.code == 0, made.said
    ids = json.loads(made.out)["fingerprint"]

    done = cli("train", *stored)
    assert done.code == 0, done.said
    order = [done.said.index(f"{part} epoch 1") for part in ("retriever", "generator", "policy", "ranker")]
    assert order == sorted(order)
    assert "policy parent: validation NDCG@5" in done.said
    workspace = tmp_path / "ws"
    manifests = {part: read_manifest(workspace / part, "checkpoint") for part in ("retriever", "generator", "policy", "ranker")}
    assert manifests["generator"]["identity"]["ids"] == ids, "ids that are there and fit are kept"
    assert manifests["generator"]["identity"]["start"] == manifests["retriever"]["fingerprint"]
    assert manifests["policy"]["identity"]["parent"] == manifests["generator"]["fingerprint"]

    judged = cli("evaluate", *stored, "--json")
    assert judged.code == 0, judged.said
    found = json.loads(judged.out)["retrieval"]
    assert found["served"] == "policy"
    assert set(found["parts"]) == {"generator", "retriever"}
    per_user = pl.read_parquet(workspace / "metrics" / "per_user.parquet")
    assert set(per_user["model"]) == {"model", "generator", "retriever", *found["floor"]}
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'm.db'}")
    runs = mlflow.search_runs(experiment_names=["recsys"], output_format="list")
    [run] = [each for each in runs if each.info.status == "FINISHED" and "policy/kept" in each.data.tags]
    assert run.data.tags["semantic_ids"] == ids
    assert run.data.metrics["test/NDCG:5/generator"] == pytest.approx(found["parts"]["generator"]["NDCG@5"])
    assert run.data.metrics["test/NDCG:5"] == pytest.approx(found["model"]["NDCG@5"])
    assert "ids/usage/1" in run.data.metrics
    below = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    [generator] = [each for each in below if each.data.tags["stage"] == "generator"]
    assert {"generator/loss_of_code/0", "generator/valid/NDCG:5"} <= generator.data.metrics.keys()

    for part in ("ranker", "policy", "generator"):
        before = {each: read_manifest(workspace / each, "checkpoint")["fingerprint"] for each in manifests}
        alone = cli("train", *stored, "--only", part, "--set", f"{part}.fit.epochs=2")
        assert alone.code == 0, alone.said
        after = {each: read_manifest(workspace / each, "checkpoint")["fingerprint"] for each in manifests}
        assert {each for each in after if after[each] != before[each]} <= {part}
        assert [name for name in manifests if f"{name} epoch 1" in alone.said] == [part]
    stale = cli("evaluate", *stored)
    assert (stale.code, "began from another generator than" in stale.said) == (2, True), stale.said


def test_yesterdays_generator_goes_on_with_the_ids_it_knows(cli: Cli, tmp_path: Path) -> None:
    stored = ["--store", f"sqlite:///{tmp_path / 'm.db'}"]
    quick = ["--set", "policy=null"]
    words = prepared(cli, tmp_path)
    for part in ("retriever", "generator"):
        done = cli("train", *words, *stored, *quick, "--only", part)
        assert done.code == 0, done.said
    today = prepared(cli, tmp_path, "today")
    still = ["--set", "generator.fit.learning_rate=1e-30", "--set", "generator.fit.embedding_learning_rate=1e-30"]
    done = cli("train", *today, *stored, *quick, *still, "--only", "generator", "--from", "ws")
    assert done.code == 0, done.said
    states = [load_file(tmp_path / each / "generator" / "model.safetensors") for each in ("ws", "today")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, msg=name)

    anew = cli("ids", *today, *stored, *quick, "--anew", "--set", "seed=9")
    assert anew.code == 0, anew.said
    other = cli("train", *today, *stored, *quick, "--only", "generator", "--from", "ws")
    assert other.code == 2, other.said
    assert "gave items other ids than" in other.said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "generator=null"], "policy.parent generator is not trained by this config: add a `generator` section"),
        (
            ["--set", "generator=null", "--set", "policy=null"],
            "serving.candidates is generator, and this config trains none: add a `generator` section",
        ),
        (
            ["--set", "generator.encoder={kind: mean_pooling, dim: 8}"],
            "begin retriever takes the retriever's encoder and tower: leave both out, or set begin to random",
        ),
        (["--set", "generator.decoder.heads=3"], "generator.decoder.heads 3 does not divide the encoder's dim 8"),
        (["--set", "policy.proposals.count=11"], "policy.proposals.count 11 is more than generator.beam 10"),
        (RETRIEVER_TOO, "set generator.validation_too as well, or begin to random"),
        (
            [*RETRIEVER_TOO, "--set", "generator.validation_too=true", "--set", "generator.fit.keep=last"],
            "policy keeps its parent unless it validates better, and generator.validation_too trains on those events",
        ),
        (["--set", "policy.deciding_share=1"], "policy.deciding_share = 1: Input should be less than 1"),
        (["--only", "generator", "--set", "generator.ids.limits.max_collisions=1"], "items share all codes (such as"),
        (
            ["--only", "generator", "--set", "generator.ids.quantizer={kind: given, features: [colour]}"],
            "quantizer.features names 'colour', which is no item feature",
        ),
        (
            ["--only", "generator", "--set", "generator.tower={features: [colour]}", "--set", "generator.begin=random"],
            "generator.tower.features names 'colour', which is no item feature",
        ),
    ],
)
def test_mistakes_end_with_one_sentence(words: list[str], says: str, cli: Cli, tmp_path: Path) -> None:
    run = prepared(cli, tmp_path) if "--only" in words else [*unprepared(tmp_path)]
    found = cli("train", *run, "--store", f"sqlite:///{tmp_path / 'm.db'}", *words)
    assert (found.code, says in found.said) == (2, True), found.said
    assert "Traceback" not in found.said
    assert not (tmp_path / "ws" / "generator").exists()


def unprepared(tmp_path: Path) -> list[str]:
    """A config is refused before any file is looked for."""
    from pipelines.workspace import CONFIGS

    (tmp_path / "shop.yaml").write_text(CONFIG.format(demo=CONFIGS / "demo.yaml"))
    return ["--config", "shop.yaml", "--workspace", "ws"]


def test_users_with_one_event_alone_are_nobody_to_validate_on(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{rng.integers(12)}", 1_600_000_000 + user) for user in range(30)]
    pl.DataFrame(rows, ["who", "what", "at"], orient="row").write_parquet(tmp_path / "raw" / "log.parquet")
    data = {
        "events": {"path": "log.parquet", "user": "who", "item": "what", "time": "at", "time_unit": "s"},
        "split": {"kind": "leave_one_out"},
    }
    policy = {"parent": "generator", "prompts": "validation"}
    (tmp_path / "one.yaml").write_text(json.dumps({"name": "one", "data": data, "generator": {}, "policy": policy}))
    done = cli("prepare", "--config", "one.yaml", "--workspace", "ws", "--data", "raw")
    assert done.code == 2
    assert "leaves no timeline event to valid and test: use another split or more data" in done.said
