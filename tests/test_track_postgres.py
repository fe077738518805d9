"""A PostgreSQL store by its address, with a real server in a temporary folder."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow_server import free_port

from recsys import track
from recsys.errors import InputError

ADDRESS = "127.0.0.1"


def binaries() -> Path | None:
    """Debian keeps them out of the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    return Path(found).parent if found else next((each for each in folders if (each / "initdb").is_file()), None)


def as_another() -> dict[str, int]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid}
    raise AssertionError("neither postgres nor nobody is a user of this machine")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = binaries()
    if folder is None:
        assert not os.environ.get("CI"), "install the Debian package postgresql"
        pytest.skip("no PostgreSQL server is installed")
    pytest.importorskip("pg8000")
    home = Path("/tmp") / f"recsys-postgres-{os.getpid()}"  # below a folder that the other user may enter
    home.mkdir()
    other = as_another()
    if other:
        os.chown(home, other["user"], other["group"])
    port = free_port()
    initialise = [folder / "initdb", "-D", home / "data", "-U", "recsys", "--auth=trust", "--no-sync"]
    subprocess.run(initialise, check=True, capture_output=True, cwd=home, **other)
    command = [folder / "postgres", "-D", home / "data", "-p", str(port), "-c", f"listen_addresses={ADDRESS}", "-k", home]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen([*command, "-c", "fsync=off"], stdout=log, stderr=log, cwd=home, **other)
    try:
        yield _wait(f"postgresql+pg8000://recsys:secret@{ADDRESS}:{port}/postgres", port)
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for clients to leave
        server.wait(30)
        shutil.rmtree(home)


def _wait(uri: str, port: int) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((ADDRESS, port), timeout=1):
            return uri
        time.sleep(0.1)
    raise AssertionError("PostgreSQL does not answer")


def test_runs_and_versions_in_postgresql(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.txt").write_text("one")
    with track.start_run("pg", "r", data="d", uri=uri, params={"seed": 1}) as run:
        with run.child("r retriever", "retriever") as child:
            for step in range(2500):
                child.metric("loss", float(step), step)
        run.metric("test/NDCG@10", 0.5)
        run.artefact(tmp_path / "bundle")
        assert run.register("shop", "candidate", folder="bundle") == 1
    (found,) = track.list_runs("pg", uri=uri)
    assert (found.status, found.params, found.metrics) == ("FINISHED", {"seed": "1"}, {"test/NDCG@10": 0.5})
    (below,) = track.children(found.id, uri=uri)
    assert [step for step, _ in track.metric_histories([below.id], "loss", uri=uri)[below.id]] == list(range(2500))
    track.set_alias("shop", "champion", 1, uri=uri)
    champion = track.get_alias("shop", "champion", uri=uri)
    assert champion is not None
    assert (track.fetch(champion, tmp_path / "here", uri=uri) / "model.txt").read_text() == "one"
    assert (tmp_path / "mlruns" / "artifacts" / run.run_id / "artifacts" / "bundle" / "model.txt").is_file()
    assert not track.waiting(uri)
    assert "secret" not in run.hint + track.describe_store(uri)


def test_a_wrong_database_is_a_mistake_and_an_absent_server_is_not(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be opened"):
        track.start_run("pg", "r", data="d", uri=uri.replace("/postgres", "/nothing"))
    away = f"postgresql+pg8000://recsys@{ADDRESS}:{free_port()}/postgres"
    with track.start_run("pg", "r", data="d", uri=away) as run:
        run.metric("loss", 1.0)
    assert [each.name for each in track.waiting(away)] == ["r"]
