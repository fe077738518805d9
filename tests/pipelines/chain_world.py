"""The whole chain through the command line, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.workspace import Workspace, config_path
from recsys.config import RunConfig, load

SMALL = [
    *("--set", "retriever.fit.epochs=4", "--set", "retriever.encoder.dim=16"),
    *("--set", "ranker.fit.epochs=2", "--set", "ranker.fit.batch_size=128"),
]


def recsys(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "pipelines.cli", *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "300", **(env or {})}, timeout=300
    )


class Chain:
    """Commands of one run in a folder, and what each of them said."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.workspace = Workspace(folder / "runs" / "demo")
        self.config: RunConfig = load(config_path("demo"), *SMALL[1::2])
        self.outputs: dict[str, subprocess.CompletedProcess[str]] = {}

    @classmethod
    def make(cls, folder: Path) -> "Chain":
        chain = cls(folder)
        for words in (
            ["simulate", "--users", "400", "--items", "150", "--events", "40000"],
            ["prepare", "--json", *SMALL],
            ["train", *SMALL],
            ["evaluate", "--json", *SMALL],
            ["export", "--json", *SMALL],
        ):
            done = chain.run(*words)
            assert done.returncode == 0, done.stderr
        return chain

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = recsys(*words, cwd=self.folder)
        self.outputs[words[0]] = done
        return done
