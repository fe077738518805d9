"""How a server starts, what its processes hold, where it listens, and how it ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.client import ask
from serving.models.deployment import follow_folder
from serving.models.models import Models
from serving.run import (
    BUNDLE_VARIABLE,
    WORKERS_VARIABLE,
    check_source,
    free_port,
    running_service,
    serve,
    settings_of_environment,
    stop,
    wait_ready,
)
from serving.settings import SETTINGS_VARIABLE, Settings


@pytest.fixture(scope="module")
def url(bundle_folder: Path) -> Iterator[str]:
    with running_service(bundle_folder) as url:
        yield url


def family(process: int) -> list[psutil.Process]:
    return [psutil.Process(process), *psutil.Process(process).children(recursive=True)]


def test_no_torch_in_the_servers_processes(url: str) -> None:
    port = url.rsplit(":", 1)[1]
    servers = [child for child in psutil.Process().children() if port in child.cmdline()]
    processes = [process for server in servers for process in (server, *server.children(recursive=True))]
    maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in processes]
    assert sum("onnxruntime" in text for text in maps) >= 1
    assert not any("libtorch" in text or "/torch/" in text for text in maps)


def test_a_connection_may_rest_for_longer_than_a_proxy_lets_it(url: str) -> None:
    """nginx and others close an idle connection after 60 s; a server that closed it first would cost a request now and then."""
    port = url.rsplit(":", 1)[1]
    [worker] = [
        child for server in psutil.Process().children() if port in server.cmdline() for child in server.children()
        if "_bentoml_impl.worker.service" in child.cmdline()
    ]  # fmt: skip
    words = worker.cmdline()
    assert int(words[words.index("--timeout-keep-alive") + 1]) > 60


def test_onnx_runtime_reports_nothing_to_its_makers(bundle_folder: Path, tmp_path: Path) -> None:
    """Where it does, it keeps a file of its session in the temporary folder, and looks up its maker's server."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = f"from pathlib import Path; from serving.bundle.bundle import Bundle; Bundle.load(Path({str(bundle_folder)!r}))"
    told = {**environment, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=told, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_named(bundle_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} on 127.0.0.1 cannot be used .* pass another --port"):
            serve(bundle_folder, Settings(live=tmp_path / "live"), port=port)


def test_a_missing_bundle_or_a_host_name_is_refused_before_anything_starts(bundle_folder: Path, tmp_path: Path) -> None:
    settings = Settings(live=tmp_path / "live")
    with pytest.raises(InputError, match="holds no bundle"):
        serve(tmp_path, settings)
    with pytest.raises(InputError, match="host 'localhost' is not an IP address"):
        serve(bundle_folder, settings, host="localhost")
    assert not settings.live.exists()


def test_ctrl_c_stops_a_foreground_server(bundle_folder: Path, tmp_path: Path) -> None:
    """The command becomes the server: an interrupt of its process group leaves no process and no traceback."""
    port = free_port()
    code = (
        "from pathlib import Path; from serving.run import serve; from serving.settings import Settings; "
        f"serve(Path({str(bundle_folder)!r}), Settings(live={str(tmp_path / 'live')!r}), port={port})"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        wait_ready(f"http://127.0.0.1:{port}", process=process)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in output


def bare(home: Path, port: int, **environment: str) -> subprocess.Popen[bytes]:
    """`bentoml serve` as its own documentation shows it."""
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "serving.service:Recommender", "--port", str(port)]
    told = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(home), **environment}
    with (home / "log").open("wb") as log:
        return subprocess.Popen(command, env=os.environ | told, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def test_bare_bentoml_serve_of_a_bundle_listens_on_this_machine_only(bundle_folder: Path, tmp_path: Path) -> None:
    """BentoML's own default would be every interface."""
    port = free_port()
    bundle = tmp_path / "bundle"
    bundle.symlink_to(bundle_folder)
    server = bare(tmp_path, port, **{BUNDLE_VARIABLE: str(bundle)})
    try:
        wait_ready(f"http://127.0.0.1:{port}", process=server, log=tmp_path / "log")
        pids = [each.pid for each in family(server.pid)]
        listening = {each.laddr.ip for each in psutil.net_connections("tcp") if each.pid in pids and each.laddr.port == port}
        assert listening == {"127.0.0.1"}
        assert len(ask(f"http://127.0.0.1:{port}", user_id="user-1", k=3)["items"]) == 3
        assert (tmp_path / "live" / "deployment.json").is_file()
    finally:
        stop(server)


def test_bare_bentoml_serve_without_a_bundle_ends_with_the_mend(tmp_path: Path) -> None:
    """It does not start a worker again and again."""
    server = bare(tmp_path, free_port(), **{BUNDLE_VARIABLE: str(tmp_path / "nothing")})
    try:
        assert server.wait(60) != 0
    finally:
        stop(server)
    assert "holds no bundle: make it with `recsys export`" in (tmp_path / "log").read_text()


def test_a_folder_that_broke_does_not_keep_a_server_from_starting_again(bundle_folder: Path, tmp_path: Path) -> None:
    bundle, live = tmp_path / "bundle", tmp_path / "live"
    shutil.copytree(bundle_folder, bundle)
    with pytest.raises(InputError, match="holds no bundle"):
        check_source(tmp_path / "none", live, Bundle.load)
    follow_folder(bundle, live)
    Models(live, max_batch=1).close()
    (bundle / "users.arrow").write_bytes(b"")
    check_source(bundle, live, Bundle.load)
    with pytest.raises(InputError, match=r"users.arrow is missing or differs"):
        check_source(bundle, tmp_path / "another", Bundle.load)


def test_what_a_server_was_told(tmp_path: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SETTINGS_VARIABLE, BUNDLE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="set RECSYS_BUNDLE to a bundle folder"):
        settings_of_environment()
    (tmp_path / "bundle").symlink_to(bundle_folder)
    monkeypatch.setenv(BUNDLE_VARIABLE, str(tmp_path / "bundle"))
    monkeypatch.setenv(WORKERS_VARIABLE, "3")
    assert settings_of_environment() == Settings(live=tmp_path / "live", workers=3)
    told = Settings(live=tmp_path / "elsewhere", max_queue=7)
    (tmp_path / "settings.json").write_text(told.model_dump_json())
    monkeypatch.setenv(SETTINGS_VARIABLE, str(tmp_path / "settings.json"))
    assert settings_of_environment() == told, "the settings file comes first"
