"""A real run on a simulated log, trained again from what its MLflow run stores."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from conftest import Cli
from mlflow.tracking import MlflowClient

from pipelines.workspace import Workspace
from recsys import track

pytestmark = [
    pytest.mark.usefixtures("one_group"),
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SMALL = [
    *("--set", "max_history=20"),  # below the default of ranker.max_history, which the stored config spells out
    *("--set", "retriever.fit.epochs=1", "--set", "retriever.encoder.dim=8"),
    *("--set", "ranker.fit.epochs=1", "--set", "ranker.fit.batch_size=128"),
]
NEW = ("--workspace", "again")


@pytest.fixture
def run_id(cli: Cli, tmp_path: Path) -> str:
    """Of a run that is trained and judged; the store is the folder's own."""
    for words in (
        ["simulate", "--users", "120", "--items", "50", "--events", "6000"],
        ["prepare", *SMALL],
        ["train", *SMALL],
        ["evaluate", *SMALL],
    ):
        done = cli(*words)
        assert not done.failed, done.said
    found = Workspace(tmp_path / "runs" / "demo").run_id
    assert found is not None
    return found


def client() -> MlflowClient:
    return MlflowClient(track.resolve_uri(None))


def test_a_run_is_reproduced_to_the_last_digit_and_both_runs_say_so(cli: Cli, run_id: str, tmp_path: Path) -> None:
    before = track.get_run(run_id)
    done = cli("reproduce", run_id, "--json")
    assert not done.failed, done.said
    found = json.loads(done.out)
    assert found["agrees"]
    assert found["other"] == []
    assert all("commit" in note for note in found["notes"])  # the code under test may have changes, or no checkout
    rows = {row["metric"]: row for row in found["metrics"]}
    assert {"test/NDCG@10", "test/AUC/click", "floor/popularity/NDCG@10"} <= set(rows)
    assert all(row["difference"] == pytest.approx(0, abs=1e-9) for row in rows.values())
    assert found["workspace"] == f"runs/reproduce-{run_id}"
    old, new = track.get_run(run_id), track.get_run(found["reproduction"])
    assert new.tags["reproduces"] == run_id
    assert old.tags["reproduced"].startswith(f"{new.id}: {len(rows)} of {len(rows)} judged metrics agree")
    assert (old.status, old.duration_s, old.metrics) == ("FINISHED", before.duration_s, before.metrics)


def test_raw_logs_that_changed_are_refused_by_name_before_anything_is_trained(cli: Cli, run_id: str, tmp_path: Path) -> None:
    raw = tmp_path / "runs" / "demo" / "raw"
    changed = tmp_path / "changed"
    shutil.copytree(raw, changed)
    path = sorted((changed / "events").rglob("*.parquet"))[0]
    table = pl.read_parquet(path)
    table.with_columns(click=1 - pl.col("click")).write_parquet(path)
    done = cli("reproduce", run_id, "--data", str(changed), *NEW)
    assert done.code == 2
    assert f"{path.relative_to(changed)} has changed" in done.said
    assert "users.parquet" not in done.said
    assert not (tmp_path / "again" / "retriever").exists()
    shutil.rmtree(raw)
    done = cli("reproduce", run_id, *NEW)
    assert done.code == 2
    assert "which is not there: name them with --data" in done.said


def test_a_metric_that_is_not_reached_again_is_shown_and_ends_with_1(cli: Cli, run_id: str) -> None:
    client().log_metric(run_id, "test/NDCG:10", 0.9)
    done = cli("reproduce", run_id, *NEW, "--json", "--tolerance", "0.001")
    assert done.code == 1
    found = json.loads(done.out)
    assert [row["metric"] for row in found["metrics"] if not row["agrees"]] == ["test/NDCG@10"]
    assert "does not agree:" in done.said
    assert "reproduced" not in track.get_run(run_id).tags
    assert "test/NDCG@10 do" in track.get_run(found["reproduction"]).tags["agrees"]


def test_what_cannot_be_reproduced_is_refused_with_the_reason(cli: Cli, run_id: str, tmp_path: Path) -> None:
    def refused(*words: str, run: str = run_id) -> str:
        done = cli("reproduce", run, *words)
        assert done.code == 2, done.said
        return done.said

    assert "has no run 'nosuchrun'" in refused(run="nosuchrun")
    assert "--workspace runs/demo holds something else" in refused("--workspace", "runs/demo")
    store = client()
    store.set_tag(run_id, "commit", "0123456789ab")
    assert "--strict: commit: the run's is 0123456789ab, this one is" in refused("--strict")
    store.set_tag(run_id, "protocol", "another one")
    assert "was judged by another protocol (another one)" in refused()
    artefacts = Path(store.get_run(run_id).info.artifact_uri)
    origin = artefacts / "origin.json"
    kept = json.loads(origin.read_text())
    origin.write_text(json.dumps({**kept, "began_from": "/old/run"}))
    assert "began --from the models in /old/run" in refused()
    origin.unlink()
    assert "keeps no origin.json, as runs of earlier versions" in refused()
    (artefacts / "config.yaml").write_text("name: [")
    assert "config.yaml is not valid YAML" in refused()
    (artefacts / "config.yaml").unlink()
    assert "keeps no config.yaml" in refused()
    store.set_terminated(run_id, "FAILED")
    assert "is FAILED and not FINISHED" in refused()
    store.set_tag(run_id, "ablation", "denoise")
    assert "one training of an ablation" in refused()
    store.delete_run(run_id)
    assert "was deleted: restore it with `mlflow runs restore" in refused()


def test_a_run_that_was_not_judged_is_refused(cli: Cli, run_id: str) -> None:
    with track.start_run("recsys", "unjudged", data="d") as run:
        run.metric("retriever/loss", 1.0)
    done = cli("reproduce", run.run_id)
    assert done.code == 2
    assert "has no test metrics to agree with: run `recsys evaluate`" in done.said


def test_a_run_of_other_code_that_trained_one_part_is_judged_by_intervals_and_by_that_part(
    cli: Cli, run_id: str, tmp_path: Path
) -> None:
    """After `train --only ranker` the retriever is that of the run before."""
    for words in (["train", *SMALL, "--only", "ranker"], ["evaluate", *SMALL]):
        assert not cli(*words).failed
    second = Workspace(tmp_path / "runs" / "demo").run_id
    assert second not in (None, run_id)
    client().set_tag(second, "commit", "0123456789ab")
    done = cli("reproduce", str(second), *NEW, "--json")
    assert not done.failed, done.said
    assert "warning: commit: the run's is 0123456789ab" in cli("reproduce", str(second), *NEW).said  # goes on in its own folder
    found = json.loads(done.out)
    agrees = {row["metric"]: row["agrees"] for row in found["metrics"]}
    assert found["rule"].startswith("within half of the 95 % interval over users")
    assert agrees["test/AUC/click"] is True
    assert agrees["floor/popularity/NDCG@10"] is True
    assert agrees["test/NDCG@10"] is None  # of a retriever that this run did not train
    assert agrees["test/LogLoss/click"] is None  # no interval is stored
