"""The command line, run in this process."""

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.cli import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    said: str  # the standard error, line breaks taken out

    @property
    def failed(self) -> bool:
        return self.code != 0


Cli = Callable[..., Done]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Runs `recsys WORDS` in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["recsys", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        found = capsys.readouterr()
        return Done(int(stop.value.code or 0), found.out, " ".join(found.err.split()))

    yield run
    signal.signal(signal.SIGTERM, before)
