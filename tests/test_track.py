"""Against the real MLflow with an SQLite store: what is written can be read back, and each refusal says its mend."""

import json
import math
import shutil
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from mlflow.exceptions import MlflowException

from recsys import plots, track
from recsys.errors import InputError
from recsys.track.bulk import log_metrics
from recsys.track.facts import flatten
from recsys.track.spool import Journal


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('track') / 'mlruns' / 'mlflow.db'}"


def file_of(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


def test_a_run_comes_back_as_it_was_written(uri: str) -> None:
    params = {
        "seed": 7,
        "encoder": {"kind": "sasrec", "dims": [64, 32]},
        "tasks": [{"name": "click"}, {"name": "like"}],
        "none": {},
    }
    with track.start_run("whole", "first", data="d1", uri=uri, params=params, tags={"note": "x"}) as run:
        run.metrics({"test/NDCG@10": 0.25, "loss": 1.5}, step=1)
        run.metric("loss", 0.5, step=2)
        run.tag(track.PROTOCOL, "time split, seen filtered")
    (found,) = track.list_runs("whole", uri=uri)
    assert found == track.get_run(run.run_id, uri=uri)
    assert (found.id, found.name, found.status) == (run.run_id, "first", "FINISHED")
    assert found.metrics == {"test/NDCG@10": 0.25, "loss": 0.5}
    assert found.params == {
        "seed": "7",
        "encoder.kind": "sasrec",
        "encoder.dims": "[64, 32]",
        "tasks.0.name": "click",
        "tasks.1.name": "like",
        "none": "{}",
    }
    assert set(found.tags) == {"data", "commit", "lock", "protocol", "note"}
    assert found.tags["data"] == "d1"
    assert found.duration_s is not None


def test_every_buffered_metric_reaches_the_store_even_when_the_run_fails(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    with suppress(ZeroDivisionError), track.start_run("buffer", "r", data="d", uri=uri) as run:
        for step in range(2345):
            run.metric("loss", float(step), step)
        run.metric("never", math.nan)
        raise ZeroDivisionError
    assert track.get_run(run.run_id, uri=uri).status == "FAILED"
    history = MlflowClient(uri).get_metric_history(run.run_id, "loss")
    assert [(entry.step, entry.value) for entry in history] == [(step, float(step)) for step in range(2345)]
    assert math.isnan(track.get_run(run.run_id, uri=uri).metrics["never"])


def test_values_that_are_written_at_once_are_those_that_mlflow_would_write(uri: str) -> None:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    random = Random(0)
    values = [(f"m{random.randrange(3)}", random.random(), random.randrange(5), random.randrange(-3, 9)) for _ in range(600)]
    values += [("m0", math.nan, 9, 9), ("m0", 0.5, 9, 9), ("m1", math.inf, 9, 9), ("m2", -math.inf, 9, 9), *values[:50]]
    runs = [track.start_run("bulk", name, data="d", uri=uri) for name in ("ours", "theirs")]
    client = MlflowClient(uri)
    for part in (values[:300], values[300:], values[200:400]):
        log_metrics(client, runs[0].run_id, part, uri)
        client.log_batch(runs[1].run_id, metrics=[Metric(*value) for value in part])
    for run in runs:
        run.__exit__(None, None, None)

    def kept(run: track.Run) -> list[object]:
        latest = {name: repr(value) for name, value in client.get_run(run.run_id).data.metrics.items()}
        found = [client.get_metric_history(run.run_id, name) for name in sorted(latest)]
        return [latest, *(sorted((each.step, each.timestamp, repr(each.value)) for each in history) for history in found)]

    assert kept(runs[0]) == kept(runs[1])
    client.delete_run(runs[0].run_id)
    with pytest.raises(MlflowException, match="active"):
        log_metrics(client, runs[0].run_id, values, uri)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "FAILED")])
def test_status_tells_how_a_run_ended(uri: str, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), track.start_run("status", "r", data="d", uri=uri) as run:
        raise error
    assert track.get_run(run.run_id, uri=uri).status == status


def test_a_later_stage_adds_to_the_run(uri: str) -> None:
    with track.start_run("resume", "r", data="d", uri=uri) as run:
        run.metric("loss", 1.0)
    before = track.get_run(run.run_id, uri=uri)
    with track.resume_run(run.run_id, uri=uri) as later:
        assert track.get_run(run.run_id, uri=uri).status == "RUNNING"
        later.metric("test/HR@10", 0.5)
    after = track.get_run(run.run_id, uri=uri)
    assert after.status == "FINISHED"
    assert after.metrics == {"loss": 1.0, "test/HR@10": 0.5}
    assert after.duration_s is not None
    assert before.duration_s is not None
    assert after.duration_s > before.duration_s


def test_runs_are_listed_newest_first(uri: str) -> None:
    for name in "abc":
        track.start_run("order", name, data="d", uri=uri).__exit__(None, None, None)
    assert [run.name for run in track.list_runs("order", uri=uri)] == ["c", "b", "a"]


def test_artefacts_lie_beside_the_database(uri: str, tmp_path: Path) -> None:
    (tmp_path / "bundle" / "deep").mkdir(parents=True)
    (tmp_path / "bundle" / "deep" / "a.txt").write_text("a")
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "valid/NDCG@10": 0.1}]
    with track.start_run("artefacts", "r", data="d", uri=uri) as run:
        run.artefact(tmp_path / "bundle")
        run.artefact(tmp_path / "bundle" / "deep" / "a.txt", under="notes")
        run.document({"x": 1}, "config.json")
        run.figure(plots.curves(history, "Training"), "plots/curves.png")
        run.figure(plots.metric_bars({"NDCG@10": 0.2}, {"popularity": {"NDCG@10": 0.1}, "none": {}}, "Test"), "plots/bars.png")
        with pytest.raises(InputError, match="absent does not exist"):
            run.artefact(tmp_path / "absent")
    kept = file_of(uri).parent / "artifacts" / run.run_id / "artifacts"
    assert (kept / "bundle" / "deep" / "a.txt").read_text() == "a"
    assert (kept / "notes" / "a.txt").read_text() == "a"
    assert json.loads((kept / "config.json").read_text()) == {"x": 1}
    assert (kept / "plots" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (kept / "plots" / "bars.png").stat().st_size > 1000


def test_registering_makes_versions_that_can_be_fetched(uri: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    runs = []
    for content in ("one", "two"):
        (bundle / "model.txt").write_text(content)
        with track.start_run("registry", content, data="d", uri=uri) as run:
            run.artefact(bundle)
        runs.append(run.run_id)
        track.register(run.run_id, "shop", "candidate", uri=uri, tags={"size": content})
    found = track.get_alias("shop", "candidate", uri=uri)
    assert found is not None
    assert (found.number, found.run_id, found.tags["size"], found.tags["data"]) == (2, runs[1], "two", "d")
    assert (track.fetch(found, tmp_path / "here", uri=uri) / "model.txt").read_text() == "two"
    track.set_alias("shop", "champion", 1, uri=uri)
    track.tag_version("shop", 1, {"decision": "kept"}, uri=uri)
    champion = track.get_alias("shop", "champion", uri=uri)
    assert champion is not None
    assert (champion.number, champion.run_id, champion.tags["decision"]) == (1, runs[0], "kept")


def test_an_absent_alias_or_model_is_none(uri: str) -> None:
    assert track.get_alias("no such model", "champion", uri=uri) is None


def test_refusals_say_what_to_do(uri: str) -> None:
    with track.start_run("refusals", "r", data="d", uri=uri) as run:
        pass
    with pytest.raises(InputError, match="has no artefact folder 'bundle': export"):
        track.register(run.run_id, "m", "candidate", uri=uri)
    with pytest.raises(InputError, match="has no run 'beef'"):
        track.resume_run("beef", uri=uri)
    with pytest.raises(InputError, match=r"has no experiment 'nothing': name one of .*refusals"):
        track.list_runs("nothing", uri=uri)
    with pytest.raises(InputError, match="refuses"):
        track.set_alias("no such model", "champion", 3, uri=uri)


def test_a_deleted_experiment_says_how_to_restore_it(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    track.start_run("gone", "r", data="d", uri=uri).__exit__(None, None, None)
    client = MlflowClient(uri)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(InputError, match="'gone' was deleted: restore it with `mlflow experiments restore -x"):
        track.start_run("gone", "r", data="d", uri=uri)


def test_a_store_that_cannot_be_opened_says_the_mend_in_one_sentence(uri: str, tmp_path: Path) -> None:
    track.start_run("schema", "r", data="d", uri=uri).__exit__(None, None, None)
    old = tmp_path / "old.db"
    shutil.copy(file_of(uri), old)
    with sqlite3.connect(old) as database:
        database.execute("UPDATE alembic_version SET version_num = 'acf3f17fdcc7'")
    (tmp_path / "junk.db").write_text("not a database" * 100)
    (tmp_path / "file").write_text("")
    for bad, said in {
        f"sqlite:///{old}": "has another schema than MLflow .* reads: back it up, then run `mlflow db upgrade sqlite:///",
        f"sqlite:///{tmp_path / 'junk.db'}": "file is not a database",
        f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}": "cannot be made in .*/file: make that a folder",
        str(tmp_path / "mlruns"): "cannot be opened .*or use sqlite:///mlruns/mlflow.db",
        "http://user:secret@127.0.0.1:9": "Connection refused",
        "postgresql://user:secret@localhost/x": "needs the Python package psycopg",
    }.items():
        with pytest.raises(InputError, match=said) as caught:
            track.describe_store(bad)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_the_argument_wins_over_the_environment_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert track.resolve_uri(None) == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert "made by the first run" in track.describe_store()
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
    assert track.resolve_uri(None) == "http://tracking:5000"
    assert track.resolve_uri("sqlite:///here.db") == f"sqlite:///{tmp_path}/here.db"


def test_flatten_keeps_scalars_and_empty_values_apart() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [], "e": None, "f": (1, 2)}) == {
        "a.b.c": "1",
        "d": "[]",
        "e": "None",
        "f": "(1, 2)",
    }


def test_importing_the_module_does_not_import_mlflow_or_matplotlib() -> None:
    program = (
        "import sys, recsys.track, recsys.plots, pipelines.comparison.runs, pipelines.promotion.promote, pipelines.doctor; "
    )
    program += "print({'mlflow', 'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_run_that_was_handed_over_stays_open_and_ends_as_the_other_process_says(uri: str) -> None:
    child = track.start_run("experiment", "trial", data="d", uri=uri, params={"a": 1})
    run_id = child.hand_over()
    assert track.get_run(run_id, uri=uri).status == "RUNNING"
    with track.resume_run(run_id, uri=uri) as run:
        run.metric("x", 1.0)
    assert track.waiting(uri) == []
    assert track.sync(uri) == 0
    assert track.get_run(run_id, uri=uri).status == "FINISHED"


def test_what_a_killed_process_left_does_not_undo_how_a_later_one_ended_the_run(uri: str) -> None:
    run_id = track.start_run("experiment", "trial", data="d", uri=uri).hand_over()
    left = Journal.begin(track.resolve_uri(uri), {"resume": run_id}, run_id=run_id, busy_s=0.0)
    left.append({"op": "tag", "name": "said", "value": "late"})
    with track.resume_run(run_id, uri=uri):
        pass
    left.leave()  # as the system does when a process is killed
    assert track.sync(uri) == 1
    assert track.get_run(run_id, uri=uri).status == "FINISHED"
    assert track.get_run(run_id, uri=uri).tags["said"] == "late"


def test_what_is_measured_no_longer_is_gone_and_comes_back_when_it_is_measured_again(uri: str) -> None:
    with track.start_run("anew", "one", data="d1", uri=uri) as run:
        run.metrics({"test/NDCG@10": 0.1, "slice/young/NDCG@10": 0.2, "cost/train_s": 3.0})
    for values in ({"test/NDCG@20": 0.3}, {"test/NDCG@20": 0.3}, {"test/NDCG@10": 0.4}):
        with track.resume_run(run.run_id, uri=uri) as again:
            again.metrics_anew(values, track.MEASURED)
        assert track.get_run(run.run_id, uri=uri).metrics == {**values, "cost/train_s": 3.0}


def test_a_journal_that_cannot_be_read_is_kept_aside_and_the_rest_is_sent(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    run_id = track.start_run("experiment", "other", data="d", uri=uri).hand_over()
    odd, good = (Journal.begin(track.resolve_uri(uri), {"resume": run_id}, run_id=run_id, busy_s=0.0) for _ in range(2))
    odd.append({"op": "of a later version"})
    good.append({"op": "tag", "name": "said", "value": "yes"})
    for journal in (odd, good):
        journal.append({"op": "hand_over"})
        journal.leave()
    assert track.sync(uri) == 1
    assert track.get_run(run_id, uri=uri).tags["said"] == "yes"
    assert "cannot send" in caplog.text
    assert track.waiting(uri) == []
    assert len(list(odd.folder.parent.glob("unreadable.*"))) == 1


def test_many_runs_that_are_read_at_once_are_those_that_mlflow_gives(uri: str) -> None:
    from recsys.track.runs import FILTERS, all_runs, searched
    from recsys.track.store import open_store

    with track.start_run("many", "parent", data="d", uri=uri, params={"a": {"b": 1}}, tags={"note": "x"}) as run:
        run.metrics({"test/NDCG@10": 0.5, "cost/none": math.nan, "cost/most": math.inf})
        with run.child("retriever", "retriever") as child:
            child.metric("loss", 1.0)
    with track.start_run("many", "gone", data="d", uri=uri) as gone:
        pass
    client = open_store(track.resolve_uri(uri))
    client.delete_run(gone.run_id)
    experiment = client.get_experiment_by_name("many").experiment_id
    for kind in ("pipelines", "stages", "both"):
        for deleted in (False, True):
            ours = all_runs(client, experiment, kind, deleted=deleted)
            theirs = searched(client, experiment, FILTERS[kind], deleted=deleted)
            assert str(ours) == str(theirs)  # a number that is none equals itself in text alone
    assert [run.name for run in all_runs(client, experiment, "pipelines")] == ["parent"]


def test_curves_that_are_read_at_once_are_those_that_mlflow_gives(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    with track.start_run("curves", "r", data="d", uri=uri) as run:
        for step, value in ((3, 0.25), (1, 0.5), (2, math.nan)):
            run.metric("valid/NDCG@10", value, step)
    (found,) = track.metric_histories([run.run_id, "absent"], "valid/NDCG@10", uri=uri).values()
    theirs = MlflowClient(uri).get_metric_history(run.run_id, "valid/NDCG:10")
    assert str(found) == str(sorted((each.step, each.value) for each in theirs))
    assert [step for step, _ in found] == [1, 2, 3]
