"""What is left of a server whose processes are killed, whose terminal is closed, or which cannot start."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from recsys.errors import InputError
from serving.models.deployment import follow_folder
from serving.run import check_free, free_port, start_background, wait_ready
from serving.settings import Settings
from serving.starting import check_start


@contextmanager
def foreground(bundle: Path, folder: Path, *before: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path, int]]:
    """A server as `recsys serve` starts it, on a terminal of its own: process, port, scratch folder, and the terminal."""
    port, temporary = free_port(), folder / "tmp"
    temporary.mkdir()
    code = (
        "from pathlib import Path; from serving.run import serve; from serving.settings import Settings; "
        f"serve(Path({str(bundle)!r}), Settings(live={str(folder / 'live')!r}, workers=2), port={port})"
    )
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*before, sys.executable, "-c", code], stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "TMPDIR": str(temporary)}, cwd=folder, start_new_session=True,  # nohup writes where it stands
    )  # fmt: skip
    os.close(terminal)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process=process)
        yield process, port, temporary, master
    finally:
        for each in family(process.pid):
            each.kill()
        process.wait()
        os.close(master)


def family(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def gone(processes: list[psutil.Process], timeout_s: float = 15) -> bool:
    return not psutil.wait_procs(processes, timeout_s)[1]


def test_workers_end_when_the_process_that_started_them_is_killed(bundle_folder: Path, tmp_path: Path) -> None:
    with foreground(bundle_folder, tmp_path) as (process, port, _, _):
        workers = family(process.pid)[1:]
        assert len(workers) >= 2
        process.kill()
        process.wait()
        assert gone(workers)
        check_free("127.0.0.1", port)


@pytest.mark.parametrize("stop", ["SIGTERM", "SIGHUP"])
def test_a_server_that_is_stopped_leaves_no_process_and_no_file(bundle_folder: Path, tmp_path: Path, stop: str) -> None:
    """The file of its settings may hold the password of a Redis server."""
    with foreground(bundle_folder, tmp_path) as (process, _, temporary, _):
        workers = family(process.pid)[1:]
        assert list(temporary.glob("recsys-serve-*/settings.json"))
        process.send_signal(signal.Signals[stop])
        process.wait(20)
        assert gone(workers)
        assert list(temporary.iterdir()) == []


def test_under_nohup_a_server_outlives_its_terminal(bundle_folder: Path, tmp_path: Path) -> None:
    with foreground(bundle_folder, tmp_path, shutil.which("nohup") or "nohup") as (process, _, _, _):
        workers = {each.pid for each in family(process.pid)[1:]}
        process.send_signal(signal.SIGHUP)
        time.sleep(2)
        assert process.poll() is None
        assert {each.pid for each in family(process.pid)[1:]} == workers


def test_a_background_server_ends_with_whoever_started_it(bundle_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.run import start_background, wait_ready; "
        "from serving.settings import Settings; live, port, scratch = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]); "
        "server = start_background(Settings(live=live), port=port, scratch=scratch); "
        "wait_ready(f'http://127.0.0.1:{port}'); print(server.pid, flush=True); server.wait()"
    )
    follow_folder(bundle_folder, tmp_path / "live")
    words = [sys.executable, "-c", code, str(tmp_path / "live"), str(free_port()), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        servers = family(int(starter.stdout.readline()))
        assert len(servers) >= 2
        starter.kill()
    assert gone(servers)


def damaged_state(folder: Path) -> dict[str, object]:
    (folder / "live").mkdir()
    (folder / "live" / "state.db").write_bytes(b"no database" * 100)
    return {}


def file_for_folder(folder: Path) -> dict[str, object]:
    (folder / "live").write_text("")
    return {}


def file_for_journal(folder: Path) -> dict[str, object]:
    (folder / "live").mkdir()
    (folder / "live" / "journal").write_text("")
    return {}


def damaged_keys(folder: Path) -> dict[str, object]:
    (folder / "live").mkdir()
    (folder / "live" / "keys.json").write_text("{")
    return {"keys": True}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (lambda folder: {"catalogue": folder / "none.csv"}, "none.csv cannot be read"),
        (lambda folder: {"state": "ftp://here"}, "write sqlite or redis://host:6379/0"),
        (lambda folder: {"state": "redis://here:port/0"}, "is the url of no Redis server"),
        (damaged_state, "delete it, and it is made again"),
        (file_for_folder, "cannot be the server's folder"),
        (file_for_journal, "journal cannot be written"),
        (damaged_keys, "keys.json cannot be read"),
    ],
)
def test_what_no_worker_could_start_with_is_refused_in_a_sentence(
    tmp_path: Path, settings: Callable[[Path], dict[str, object]], sentence: str
) -> None:
    given = settings(tmp_path)
    with pytest.raises(InputError) as refused:
        check_start(Settings.model_validate({"live": tmp_path / "live", **given}))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_redis_server_that_is_away_and_an_empty_folder_are_no_hindrance(tmp_path: Path) -> None:
    check_start(Settings(live=tmp_path / "live", state=f"redis://127.0.0.1:{free_port()}/0"))
    check_start(Settings(live=tmp_path / "other"))


def test_a_server_that_cannot_start_ends_and_does_not_try_for_ever(bundle_folder: Path, tmp_path: Path) -> None:
    live = tmp_path / "live"
    follow_folder(bundle_folder, live)
    settings = Settings(live=live, catalogue=tmp_path / "none.csv")
    server = start_background(settings, port=free_port(), scratch=tmp_path)
    try:
        assert server.wait(60) != 0
    finally:
        for each in family(server.pid):
            each.kill()
        server.wait()
    assert "none.csv cannot be read" in (tmp_path / "log").read_text()
