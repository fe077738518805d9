"""Requests without end while the model is swapped every few seconds: errors, versions seen, tail of latency, memory."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve.servers import ask, endpoint, resident_mib, users_of
from recsys.artefact import read_manifest, write_artefact
from serving.bundle.bundle import Bundle
from serving.bundle.stand_ins import POPULAR_FILE
from serving.models.deployment import Deployment, Placed, write

SAMPLE_S = 2.0


def second_bundle(bundle: Path, folder: Path) -> Path:
    """The same model under another version: one of the files that no graph reads is another one."""
    manifest = read_manifest(bundle, "bundle")
    kept = {key: manifest[key] for key in ("name", "model", "lineage", "parity_max_error") if key in manifest}
    with write_artefact(folder, "bundle", **kept) as (scratch, _):
        for name in manifest["files"]:
            shutil.copyfile(bundle / name, scratch / name)
        np.save(scratch / POPULAR_FILE, np.roll(np.load(bundle / POPULAR_FILE), 1))
    return folder


def soak(bundle: Path, scratch: Path, *, requests: int, connections: int, every_s: float) -> dict[str, Any]:
    """Percentiles and errors of all requests, versions that answered, and the workers' own memory over time in MiB."""
    folders = [bundle, second_bundle(bundle, scratch / "second")]
    users, live, ended = users_of(Bundle.load(bundle)), scratch / "live", threading.Event()
    memory: list[float] = []
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        seconds = 0.0
        while not ended.wait(SAMPLE_S):
            memory.append(resident_mib(workers))
            seconds += SAMPLE_S
            if seconds >= every_s:
                swaps, seconds = swaps + 1, 0.0
                write(Deployment(live=Placed(folder=folders[swaps % 2].absolute())), live)

    with endpoint(bundle, live=live) as (port, workers):
        thread = threading.Thread(target=swap, daemon=True)
        thread.start()
        found = ask(port, users, connections, total=requests, expected=['"flags":[]'])
        ended.set()
        thread.join()
    return {**found, "swaps": swaps, "memory_mib": [round(each, 1) for each in memory], **_growth(memory)}


def _growth(memory: list[float]) -> dict[str, float]:
    """Growth from the second fifth to the last one, by medians: the first fifth warms up."""
    fifth = max(1, len(memory) // 5)
    before, after = np.median(memory[fifth : 2 * fifth]), np.median(memory[-fifth:])
    return {"memory_before_mib": float(before), "memory_after_mib": float(after), "growth": float(after / before - 1)}


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(soak(Path(sys.argv[1]), Path(folder), requests=int(sys.argv[2]), connections=16, every_s=10)))
