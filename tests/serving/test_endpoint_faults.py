"""An endpoint that follows an alias is asked all the time while its store, its disk and a bundle fail."""

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow_server import Server
from tiny_bundle import build_bundle

from benchmarks.faults.asked import Asked, endpoint
from benchmarks.faults.damage import flip_in
from benchmarks.faults.disk import FullDisk, small_disk
from benchmarks.faults.network import Proxy
from recsys import track
from recsys.artefact import MANIFEST

MODEL = "faulty"


class Store:
    """Bundles that differ in their value formula, registered in a real store without a proxy."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri

    def promote(self, number: int, *, damaged: bool = False) -> str:
        folder = build_bundle(self.folder / f"bundle-{number}", value={"click": 1.0 + number})
        fingerprint: str = json.loads((folder / MANIFEST).read_text())["fingerprint"]
        if damaged:
            flip_in(folder, random.Random(number))
        with track.start_run(MODEL, f"run-{number}", data="d", uri=self.uri) as run:
            run.artefact(folder, "bundle")
        track.register(run.run_id, MODEL, "champion", uri=self.uri)
        return fingerprint


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    try:
        server.start()
        yield server
    finally:
        server.kill()


def wait_for(what: Callable[[], bool], why: object = "", within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


def comes(asked: Asked, version: str) -> None:
    """This version answers."""
    wait_for(lambda: asked.versions[version] > 0, asked)


def goes_on(asked: Asked, version: str, answers: int = 20) -> None:
    """So many more answers come, all of this version."""
    before, total = asked.versions[version], asked.total
    wait_for(lambda: asked.versions[version] >= before + answers, asked)
    assert asked.total - total <= asked.versions[version] - before + 1


def test_only_whole_models_that_were_promoted_answer_and_none_fails(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, proxy = Store(tmp_path, server.uri), Proxy(server.port)
    first = store.promote(1)
    nobody: subprocess.Popen[bytes] | None = None
    with small_disk(tmp_path / "disk", 32 << 20) as disk:
        live = (disk or tmp_path) / "live"
        try:
            with endpoint(MODEL, proxy.uri, live) as (_, asked):
                goes_on(asked, first)
                for number, silent in ((2, False), (3, True)):
                    last = list(asked.versions)[-1]
                    proxy.cut(silent=silent)
                    version = store.promote(number)
                    goes_on(asked, last)
                    proxy.mend()
                    comes(asked, version)
                store.promote(4, damaged=True)
                wait_for(lambda: "differs from its manifest" in (live / "follow.json").read_text())
                goes_on(asked, version)
                if disk is not None:
                    full = FullDisk(disk, spare_bytes=1)
                    full.strike(nobody, random.Random(1))  # type: ignore[arg-type]
                    last, version = version, store.promote(5)
                    goes_on(asked, last)
                    full.mend()
                    comes(asked, version)
        finally:
            proxy.close()
    assert not asked.failed
    assert len(asked.versions) == (4 if disk is not None else 3)
