"""Each fault strikes a real process, so that a matrix that passes says something."""

import http.client
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from benchmarks.faults.clock import ClockJump
from benchmarks.faults.damage import flip_in
from benchmarks.faults.disk import FullDisk, NoLargeFiles, small_disk
from benchmarks.faults.fault import Fault, Kill, end
from benchmarks.faults.memory import NoMemory
from benchmarks.faults.network import LostNetwork, Proxy
from recsys.artefact import read_manifest, write_artefact
from recsys.errors import InputError

# Says "ready", waits for a line, runs the code and says what came of it.
CHILD = """
print('ready', flush=True)
input()
try:
    {code}
    print('fine')
except Exception as error:
    print(repr(error))
"""


@contextmanager
def child(code: str, fault: Fault) -> Iterator[subprocess.Popen[bytes]]:
    import os

    process = subprocess.Popen(
        [sys.executable, "-u", "-c", CHILD.format(code=code)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **fault.environment()}, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        end(process)


def struck(code: str, fault: Fault) -> str:
    """What the child says that is struck before it runs the code."""
    with child(code, fault) as process:
        fault.strike(process, random.Random(1))
        return process.communicate(b"go\n", timeout=30)[0].decode().strip()


def test_kill_leaves_nothing_of_a_process_and_its_children() -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    with child(code, Kill()) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"go\n")
        process.stdin.flush()
        grandchild = int(process.stdout.readline())
        Kill().strike(process, random.Random(1))
        assert process.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 5
        while (state := _state(grandchild)) not in ("", "Z"):
            assert time.monotonic() < deadline, state
            time.sleep(0.01)


def _state(process: int) -> str:
    path = Path(f"/proc/{process}/stat")
    return path.read_text().rpartition(")")[2].split()[0] if path.exists() else ""


def test_no_memory_fails_what_asks_for_more() -> None:
    assert struck("bytearray(64 << 20)", NoMemory()) == "MemoryError()"
    assert struck("bytearray(64 << 20)", Fault()) == "fine"


def test_files_cannot_grow(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'file')!r}, 'wb').write(bytes(1 << 20))"
    assert struck(code, NoLargeFiles()) == "OSError(27, 'File too large')"
    assert struck(code, Fault()) == "fine"


def test_a_disk_is_full_and_has_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        if disk is None:
            pytest.skip("mounting a tmpfs takes root")
        fault, code = FullDisk(disk), f"open({str(disk / 'file')!r}, 'wb').write(bytes(1 << 20))"
        assert struck(code, fault) == "OSError(28, 'No space left on device')"
        fault.mend()
        assert struck(code, Fault()) == "fine"


def test_the_clock_jumps_while_a_process_runs_and_its_timers_do_not(tmp_path: Path) -> None:
    code = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    jump = ClockJump(tmp_path, (-86_400,))
    said = struck(code, jump).split()
    now = [time.time() - 86_400] * 2 + [time.monotonic()]
    assert [float(each) for each in said[:3]] == pytest.approx(now, abs=20)
    jump.mend()
    assert float(struck(code, ClockJump(tmp_path, (0,))).split()[0]) == pytest.approx(time.time(), abs=20)


def test_flipped_bytes_are_seen_by_hashes_alone(tmp_path: Path) -> None:
    folder = tmp_path / "days" / "2026-01-01" / "bundle"
    with write_artefact(folder, "bundle") as (scratch, _):
        (scratch / "model.onnx").write_bytes(bytes(4096))
    before = (folder / "model.onnx").stat()
    assert flip_in(folder, random.Random(1)) == folder / "model.onnx"
    after = (folder / "model.onnx").stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    read_manifest(folder, "bundle")
    with pytest.raises(InputError, match=r"model\.onnx is missing or differs"):
        read_manifest(folder, "bundle", verify=True)


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("silent", "error"), [(False, ConnectionRefusedError), (True, TimeoutError)])
def test_the_network_is_lost_and_comes_back(silent: bool, error: type[Exception]) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = Proxy(server.server_port)

    def ask() -> int:
        door = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=1)
        try:
            door.request("GET", "/")
            return door.getresponse().status
        finally:
            door.close()

    try:
        assert ask() == 200
        proxy.cut(silent=silent)
        with pytest.raises(error):
            ask()
        LostNetwork(proxy).mend()
        assert ask() == 200
    finally:
        proxy.close()
        server.shutdown()
        server.server_close()
