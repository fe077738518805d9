"""`recsys train` with a policy, from the command line."""

import json
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
from conftest import Cli

from recsys.artefact import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor", "ignore::UserWarning")
BEGIN = 1_600_000_000  # seconds since 1970
CONFIG = """
name: shop
max_history: 6
data:
  events:
    path: log.parquet
    user: who
    item: what
    time: at
    time_unit: s
    history: click = 1
    labels: {click: click = 1, later: {kind: within, event: click = 1, within: 2h}}
    propensity: chance
  split: {kind: leave_one_out}
retriever:
  encoder: {kind: mean_pooling, dim: 8}
  fit: {epochs: 1, batch_size: 8, embedding_learning_rate: 0.1}
evaluation: {ks: [5]}
policy:
  fit: {epochs: 2, batch_size: 8, embedding_learning_rate: 0.05}
"""
pytestmark = pytest.mark.usefixtures("one_group")
LOGGED = "policy={objective: {kind: top_k_reinforce}, rewards: [{kind: task, task: click}]}"


def write_log(folder: Path, *, zero: bool = False) -> None:
    rng, rows = np.random.default_rng(0), []
    for user in range(40):
        for place in range(8):
            item = user % 2 * 10 + (user + place) % 10
            rows.append((f"u{user}", f"i{item}", BEGIN + place * 3600, 1, 0.0 if zero and place == 1 else 0.1))
            rows.append((f"u{user}", f"i{rng.integers(20)}", BEGIN + place * 3600 + 60, 0, 0.05))
    folder.mkdir()
    pl.DataFrame(rows, ["who", "what", "at", "click", "chance"], orient="row").write_parquet(folder / "log.parquet")


def prepared(cli: Cli, tmp_path: Path, config: str = CONFIG, **options: bool) -> list[str]:
    """Words that name the run."""
    write_log(tmp_path / "raw", **options)
    (tmp_path / "shop.yaml").write_text(config)
    words = ["--config", "shop.yaml", "--workspace", "ws"]
    assert cli("prepare", *words, "--data", "raw").code == 0
    return [*words, "--store", f"sqlite:///{tmp_path / 'm.db'}"]


def test_a_policy_is_trained_after_its_parent_and_shown_beside_it(cli: Cli, tmp_path: Path) -> None:
    words = prepared(cli, tmp_path, CONFIG.replace(", later: {kind: within, event: click = 1, within: 2h}", ""))
    early = cli("train", *words, "--only", "policy")
    assert early.code == 2
    assert "retriever holds no checkpoint" in early.said

    done = cli("train", *words, "--set", "ranker.fit.epochs=1")
    assert done.code == 0, done.said
    assert list(dict.fromkeys(word for word in done.said.split() if word in ("retriever", "policy", "ranker")))
    assert "policy parent: validation NDCG@5" in done.said
    assert "kl_to_parent 0.0000" in done.said
    manifest = read_manifest(tmp_path / "ws" / "policy", "checkpoint")
    assert f"kept: the {manifest['guard']['kept']}, {manifest['guard']['why']}" in done.said
    assert done.said.index("retriever epoch 1") < done.said.index("policy parent") < done.said.index("ranker epoch 1")

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'm.db'}")
    runs = mlflow.search_runs(experiment_names=["recsys"], output_format="list")
    [run] = [each for each in runs if each.info.status == "FINISHED" and "mlflow.parentRunId" not in each.data.tags]
    assert run.data.tags["policy/kept"].startswith(manifest["guard"]["kept"])
    below = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    [policy] = [each for each in below if each.data.tags["stage"] == "policy"]
    assert {
        "policy/reward",
        "policy/kl_to_parent",
        "policy/valid/NDCG:5",
        "policy/valid/kl_to_parent",
    } <= policy.data.metrics.keys()
    history = json.loads((tmp_path / "ws" / "policy" / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [0, 1, 2]

    again = cli("train", *words, "--only", "policy", "--set", "policy.fit.epochs=1")
    assert again.code == 0, again.said
    assert "policy parent" in again.said
    assert "retriever epoch" not in again.said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "policy", "--set", "policy=null"], "it has no `policy` section, such as {objective: {kind: rere}}"),
        (["--only", "police"], "--only 'police' is unknown: choose retriever, generator, policy or ranker"),
        (
            ["--set", "policy.rewards=[{kind: task, task: later}]"],
            "policy.rewards read the label 'later' of the next event, which is not known when it happens: take a label without "
            "`within`, or an objective that learns from the log",
        ),
        (
            ["--set", LOGGED],
            "divides by the propensity, and 40 of 440 training rows have 0: what was shown had a chance above 0",
        ),
        (["--set", "policy.fit.keep=last"], "fit.keep last would keep a policy that is worse than its parent"),
    ],
)
def test_mistakes_end_with_one_sentence(words: list[str], says: str, cli: Cli, tmp_path: Path) -> None:
    run = prepared(cli, tmp_path, zero=True)
    assert cli("train", *run, "--only", "retriever").code == 0
    found = cli("train", *run, *([] if "--only" in words else ["--only", "policy"]), *words)
    assert (found.code, says in found.said) == (2, True), found.said


def test_what_the_log_shows_once_has_nothing_to_propose_to(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    rows = [(f"u{user}", f"i{(user + place) % 5}", BEGIN + place, 1, 0.5) for user in range(20) for place in range(3)]
    frame = pl.DataFrame(rows, ["who", "what", "at", "click", "chance"], orient="row")
    frame.write_parquet(tmp_path / "raw" / "log.parquet")
    (tmp_path / "shop.yaml").write_text(CONFIG.replace(", later: {kind: within, event: click = 1, within: 2h}", ""))
    words = ["--config", "shop.yaml", "--workspace", "ws", "--set", "ranker.fit.epochs=1"]
    assert cli("prepare", *words, "--data", "raw").code == 0
    words += ["--store", f"sqlite:///{tmp_path / 'm.db'}"]
    assert cli("train", *words, "--only", "retriever").code == 0
    found = cli("train", *words, "--only", "policy")
    assert "no user has a training event after another one, so there is nothing to propose to: change data.split" in found.said
