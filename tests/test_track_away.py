"""A store that goes away: nothing that a run says is lost or there twice, and nobody waits. Against a real MLflow server."""

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import Proxy, Server, cut_at, free_port

from pipelines import doctor
from recsys import track
from recsys.errors import InputError
from recsys.track import outbox, spool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The spool lies in the test's own folder, and nobody waits as long as for a real server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setattr(outbox, "PATIENCE_S", 3.0)
    monkeypatch.setattr(outbox, "RETRY_AFTER_S", 1.0)
    spool._said.clear()


def history(run_id: str, name: str, uri: str) -> list[tuple[int, float]]:
    return track.metric_histories([run_id], name, uri=uri).get(run_id, [])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "recsys.track"]


def test_a_server_that_is_killed_while_a_run_logs_has_everything_after_it_came_back(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x" * 3_000_000)
    with track.start_run("killed", "r", data="d", uri=server.uri, params={"seed": 1}) as run:
        with run.child("r retriever", "retriever") as child:
            for step in range(5000):
                child.metric("loss", float(step), step)
                if step == 2000:
                    child.flush()
                    server.kill()
            child.artefact(tmp_path / "weights.bin", under="model")
        (tmp_path / "weights.bin").unlink()
        run.tag("note", "after")
        run.document({"a": 1}, "config.yaml")
        run.metric("test/NDCG@10", 0.5)
    assert len(warnings(caplog)) == 1
    assert "away" in warnings(caplog)[0]
    assert "recsys sync" in warnings(caplog)[0]
    assert {each.run for each in track.waiting(server.uri)} >= {run.run_id}
    check = doctor.spool(server.uri)
    assert check.ok is None
    assert check.found.startswith("2 journals with ")
    assert "recsys sync" in check.mend
    with pytest.raises(InputError, match="cannot be opened"):
        track.sync(server.uri)
    server.start()
    assert track.sync(server.uri) == 2
    assert track.waiting(server.uri) == []
    assert doctor.spool(server.uri).ok
    found = track.get_run(run.run_id, uri=server.uri)
    assert (found.status, found.tags["note"], found.metrics) == ("FINISHED", "after", {"test/NDCG@10": 0.5})
    (below,) = track.children(run.run_id, uri=server.uri)
    assert (below.status, below.tags["stage"], below.tags["data"]) == ("FINISHED", "retriever", "d")
    assert history(below.id, "loss", server.uri) == [(step, float(step)) for step in range(5000)]
    kept = track.artefact(below.id, "model/weights.bin", uri=server.uri)
    assert kept is not None
    assert kept.stat().st_size == 3_000_000
    assert [run.name for run in track.list_runs("killed", uri=server.uri)] == ["r"]


def test_a_run_that_begins_without_a_server_is_made_later_and_goes_on_under_its_local_id(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "model.txt").write_text("one")
    server.kill()
    began = time.time()
    with track.start_run("absent", "r", data="d", uri=server.uri, params={"a": {"b": 1}}) as run:
        with run.child("r retriever", "retriever") as child:
            child.metric("loss", 1.0, 1)
        run.metric("cost/train_s", 3.0)
    local = run.run_id
    assert local.startswith("local-")
    with track.resume_run(local, uri=server.uri) as later, later.child("r evaluate", "evaluate"):
        later.metric("test/NDCG@10", 0.25)
        later.artefact(bundle, "bundle-1")
        assert later.register("absent-model", "candidate", folder="bundle-1") is None
    assert len(warnings(caplog)) == 1
    server.start()
    with track.resume_run(local, uri=server.uri) as last:  # opening the store again sends what waits
        last.metric("export/bundle_mib", 2.0)
    assert track.waiting(server.uri) == []
    (found,) = track.list_runs("absent", uri=server.uri)
    assert found == track.get_run(local, uri=server.uri)
    assert found.id == last.run_id
    assert found.metrics == {"cost/train_s": 3.0, "test/NDCG@10": 0.25, "export/bundle_mib": 2.0}
    assert (found.params, found.status) == ({"a.b": "1"}, "FINISHED")
    assert abs(found.start.timestamp() - began) < 5
    assert [each.tags["stage"] for each in track.children(local, uri=server.uri)] == ["retriever", "evaluate"]
    version = track.get_alias("absent-model", "candidate", uri=server.uri)
    assert version is not None
    assert (version.run_id, version.folder, version.tags["data"]) == (found.id, "bundle-1", "d")


def test_a_server_that_takes_calls_and_never_answers_is_not_felt(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with track.start_run("frozen", "r", data="d", uri=server.uri) as run:
        run.flush()
        server.send(signal.SIGSTOP)
        slowest = 0.0
        for step in range(4000):
            began = time.perf_counter()
            run.metrics({"loss": 0.5, "rate": 1.0}, step)
            slowest = max(slowest, time.perf_counter() - began)
            time.sleep(0.001)
        began = time.monotonic()
    assert time.monotonic() - began < 3 * 3 + 5
    assert slowest < 0.1
    assert len(warnings(caplog)) == 1
    server.send(signal.SIGCONT)
    track.sync(server.uri)
    assert [step for step, _ in history(run.run_id, "loss", server.uri)] == list(range(4000))
    assert track.get_run(run.run_id, uri=server.uri).status == "FINISHED"


def test_a_black_hole_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(64)
        uri = f"http://127.0.0.1:{hole.getsockname()[1]}"
        began = time.monotonic()
        with track.start_run("e", "r", data="d", uri=uri) as run:
            assert time.monotonic() - began < 10
            run.metric("loss", 1.0)
        assert time.monotonic() - began < 20
    assert [each.name for each in track.waiting(uri)] == ["r"]
    assert len(warnings(caplog)) == 1


def test_two_processes_spool_at_once(server: Server) -> None:
    port = free_port()
    program = f"""
from recsys import track
import sys
with track.start_run("two", sys.argv[1], data="d", uri="http://127.0.0.1:{port}") as run:
    for step in range(300):
        run.metric("loss", step, step)
"""
    both = [subprocess.Popen([sys.executable, "-c", program, name], stderr=subprocess.PIPE, text=True) for name in "ab"]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert said.count("is away") == 1
        assert len(said.strip().splitlines()) == 1
    assert sorted(each.name for each in track.waiting(f"http://127.0.0.1:{port}")) == ["a", "b"]
    folder = spool.spool_of(f"http://127.0.0.1:{port}")
    folder.rename(spool.spool_of(server.uri))  # the server has moved to another address
    syncing = [
        subprocess.Popen(
            [sys.executable, "-c", f"from recsys import track; print(track.sync({server.uri!r}))"], stdout=subprocess.PIPE
        )
        for _ in "ab"
    ]
    assert sum(int(process.communicate(timeout=120)[0]) for process in syncing) == 2
    runs = track.list_runs("two", uri=server.uri)
    assert sorted(run.name for run in runs) == ["a", "b"]
    for run in runs:
        assert [step for step, _ in history(run.id, "loss", server.uri)] == list(range(300))


def test_what_is_sent_twice_is_there_once(server: Server, tmp_path: Path) -> None:
    """A sender that is killed between the call and its note of it sends the same again."""
    with track.start_run("twice", "r", data="d", uri=server.uri) as run:
        run.flush()
        server.send(signal.SIGSTOP)
        for step in range(1500):
            run.metric("loss", 1.0, step)
        run.metric("nan", float("nan"), 1)
        run.metric("inf", float("inf"), 1)
        run.tag("t", "x")
    server.send(signal.SIGCONT)
    (left,) = track.waiting(server.uri)
    note = Path(left.folder) / spool.STATE
    before, journal = note.read_text(), (Path(left.folder) / spool.JOURNAL).read_bytes()
    track.sync(server.uri)
    Path(left.folder).mkdir()
    for name, content in ((spool.STATE, before.encode()), (spool.JOURNAL, journal), (spool.LOCK_FILE, b"")):
        (Path(left.folder) / name).write_bytes(content)
    assert track.sync(server.uri) == 1
    assert [step for step, _ in history(run.run_id, "loss", server.uri)] == list(range(1500))
    assert len(history(run.run_id, "nan", server.uri)) == 1
    assert len(history(run.run_id, "inf", server.uri)) == 1


def test_a_server_that_goes_away_while_the_spool_is_sent_gets_the_rest_of_it_later(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.txt").write_text("one")
    proxy = Proxy(server.port)
    proxy.cut(silent=False)
    with track.start_run("half-sent", "r", data="d", uri=proxy.uri) as run:
        run.artefact(tmp_path / "bundle")
        assert run.register("half-sent", "candidate", folder="bundle") is None
    for call in ("create_run", "create_model_version"):
        proxy.mend()
        with monkeypatch.context() as patch:
            cut_at(patch, proxy, call, 1, silent=False)
            with pytest.raises(track.StoreAwayError, match=r"answers no more .*run the same command again"):
                track.sync(proxy.uri)
        assert [each.name for each in track.waiting(proxy.uri)] == ["r"]
    proxy.mend()
    assert track.sync(proxy.uri) == 1
    version = track.get_alias("half-sent", "candidate", uri=proxy.uri)
    assert version is not None
    assert track.get_run(version.run_id, uri=proxy.uri).status == "FINISHED"
    proxy.close()


@pytest.mark.parametrize("kind", ["no folder", "full"])
def test_a_spool_that_cannot_be_written_costs_one_warning(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    uri, limits = server.uri, resource.getrlimit(resource.RLIMIT_FSIZE)
    if kind == "no folder":
        (tmp_path / "mlruns").write_text("a file")
    try:
        with track.start_run("unwritable", kind, data="d", uri=uri) as run:
            if kind == "full":
                run.flush()
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
            for step in range(3000):
                run.metric("loss", 1.0, step)
            run.document({"a": 1}, "a.json")
            run.flush()
            run.metric("test/x", 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [line for line in warnings(caplog) if "cannot be written" not in line] == []
    assert len(warnings(caplog)) == 1
    assert len(history(run.run_id, "loss", uri)) == 3000
    found = track.get_run(run.run_id, uri=uri)
    assert (found.status, found.metrics["test/x"]) == ("FINISHED", 1.0)
    assert track.artefact(run.run_id, "a.json", uri=uri) is not None


def test_a_process_that_is_killed_loses_a_second_at_most(tmp_path: Path) -> None:
    program = """
import time
from recsys import track
with track.start_run("killed", "r", data="d") as run:
    for step in range(100_000):
        run.metric("loss", step, step)
        print(step, flush=True)
        time.sleep(0.005)
"""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    seen: list[tuple[float, int]] = []
    for line in process.stdout:
        seen.append((time.monotonic(), int(line)))
        if len(seen) == 900:
            process.kill()
            break
    process.wait()
    uri = track.resolve_uri("sqlite:///mlruns/mlflow.db")
    (left,) = track.waiting(uri)
    assert not left.ended
    (run,) = track.list_runs("killed", uri=uri)
    assert run.status == "KILLED"
    steps = [step for step, _ in history(run.id, "loss", uri)]
    assert steps == list(range(len(steps)))
    longest_ago = seen[-1][0] - (outbox.JOURNAL_EVERY_S + 1.0)
    assert len(steps) > sum(when < longest_ago for when, _ in seen)
    assert track.waiting(uri) == []


def test_warnings_are_plain_lines_without_the_password(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    monkeypatch.setattr(logging.getLogger(), "level", logging.ERROR)  # as training sets it
    with track.start_run("e", "r", data="d", uri=uri):
        pass
    (line,) = warnings(caplog)
    assert "secret" not in line
    assert "\n" not in line
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
