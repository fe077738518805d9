"""`recsys forget` as it is called, against a real server and its journal."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import Cli
from safetensors.torch import load_file
from served_log import Served

from pipelines import stages
from pipelines.train import train_retriever
from pipelines.workspace import Workspace
from recsys.config import load
from recsys.dataset import Dataset
from recsys.simulate import Simulation, simulate
from serving.client import Client
from serving.journal.predictions import prediction_of
from serving.run import running_service
from serving.schema import Event

pytestmark = [pytest.mark.filterwarnings("ignore:Please use DTensor"), pytest.mark.usefixtures("one_group")]

ALONE = """
name: alone
max_history: 20
data:
  events: {path: events, user: user_id, item: item_id, time: time_ms, time_unit: ms, history: click = 1, slot: slot}
  split: {kind: time, valid_share: 0.15, test_share: 0.25}
retriever:
  encoder: {kind: sasrec, dim: 16, blocks: 1, heads: 1, dropout: 0.0}
  loss: {kind: full_softmax}
  fit: {epochs: 2, batch_size: 32, learning_rate: 3.0e-3, embedding_learning_rate: 0.05}
"""


class Quiet:
    def step(self, job: str, **_: object) -> None: ...
    def validated(self, job: str, **_: object) -> None: ...


@pytest.fixture
def run(tmp_path: Path, group: torch.device) -> list[str]:
    """A trained retriever, and the words of the command that say where it is."""
    simulate(Simulation(users=400, items=60, events=12_000, days=6, seed=3), tmp_path / "raw")
    (tmp_path / "alone.yaml").write_text(ALONE)
    config, workspace = load(tmp_path / "alone.yaml"), Workspace(tmp_path / "run")
    stages.prepare(config, tmp_path / "raw", workspace)
    train_retriever(config, Dataset(workspace.dataset), workspace.checkpoint("retriever"), device=group, progress=Quiet())
    return ["--config", str(tmp_path / "alone.yaml"), "--data", str(tmp_path / "raw"), "--workspace", str(tmp_path / "run")]


def someone(folder: Path) -> list[str]:
    data = Dataset(folder / "run" / "dataset")
    return [str(data.user_ids[row]) for row in data.train_length_U.argsort()[-2:]]


def test_unlearn_and_a_server_that_runs(run: list[str], served: Served, cli: Cli, tmp_path: Path) -> None:
    users = someone(tmp_path)
    before = load_file(tmp_path / "run/retriever/model.safetensors")
    live = tmp_path / "live"
    with running_service(served.bundle, live=live) as url:
        client = Client(url)
        item = Dataset(served.workspace.dataset).item_ids[5]
        client.events(*(Event(user_id=user, item_id=str(item), event="click") for user in (*users, "somebody else")))
        done = cli("forget", *users, *run, "--method", "unlearn", "--url", url, "--live", str(live), "--json")
        assert not done.failed, done.said
        assert client.forget(users[0]).events == 0  # none is left
        assert client.forget("somebody else").events == 1
        client.close()
    receipt = json.loads(done.out[: done.out.rindex("}") + 1])
    assert receipt["server"]["events_deleted"] == 2
    assert receipt["server"]["journal_lines"] >= 2
    assert receipt["model"]["retriever"]["auc_against_unseen"] >= 0
    assert receipt["measured"]["retriever"]["attack"]["after"]["others"] >= 20
    posted = b"".join(path.read_bytes() for path in live.glob("journal/events/*/*.posted.ndjson"))
    assert b"somebody else" in posted
    assert not any(user.encode() in posted for user in users)
    now = load_file(tmp_path / "run/retriever/model.safetensors")
    assert any(not torch.equal(now[name], before[name]) for name in now if "embeddings" not in name)


def test_retraining_gives_the_model_that_a_log_without_the_users_gives(
    run: list[str], cli: Cli, tmp_path: Path, group: torch.device
) -> None:
    """Bit for bit: nothing of the users, of the old dataset or of the old model has a say in it."""
    users = someone(tmp_path)
    for path in (tmp_path / "raw").rglob("*.parquet"):
        if "truth" not in path.parts and "user_id" in (frame := pl.read_parquet(path)).columns:
            never = tmp_path / "never" / path.relative_to(tmp_path / "raw")
            never.parent.mkdir(parents=True, exist_ok=True)
            frame.filter(~pl.col("user_id").cast(pl.String).is_in(users)).write_parquet(never)
    config, other = load(tmp_path / "alone.yaml"), Workspace(tmp_path / "other")
    stages.prepare(config, tmp_path / "never", other)
    train_retriever(config, Dataset(other.dataset), other.checkpoint("retriever"), device=group, progress=Quiet())
    done = cli("forget", *users, *run, "--store", f"sqlite:///{tmp_path}/m.db")
    assert not done.failed, done.said
    expected, found = (load_file(tmp_path / name / "retriever/model.safetensors") for name in ("other", "run"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_unknown_method_is_named(run: list[str], cli: Cli) -> None:
    assert "--method 'wish' is unknown: choose retrain, dampen, unlearn" in cli("forget", "u1", *run, "--method", "wish").said


def test_predictions_of_the_error_memory_become_blanks_that_are_passed_over(tmp_path: Path) -> None:
    from pipelines.forget.live import blank

    line = {
        "request_id": "r", "user_id": "u1", "served_ms": 5, "time_ms": 5, "version": "v", "compensated": False,
        "history": ["a"], "items": ["b"], "tasks": {"click": [0.1]},
    }  # fmt: skip
    path = tmp_path / "journal/predictions/2026-01-01-host-1-1.ndjson"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line | {"user_id": user}) + "\n" for user in ("u1", "u2")))
    size = path.stat().st_size
    assert blank(tmp_path, ["u1"]) == 1
    assert path.stat().st_size == size
    said = [prediction_of(each) for each in path.read_bytes().splitlines()]
    assert said[0] is None
    assert said[1] is not None
    assert said[1].user_id == "u2"
