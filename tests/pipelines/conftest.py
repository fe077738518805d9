"""The command line, run in this process or as a chain of commands; a store for it; what ablations train."""

import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from chain_world import Chain
from planted_runs import plant_run
from served_log import Served, make_served
from sweep_world import WORDS, write_run

from pipelines.ablation import run as ablation_run
from pipelines.cli import main
from recsys.config import RunConfig
from recsys.dataset import Dataset


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, group: torch.device) -> Served:
    """A bundle with point-in-time features, and the log with what came after it."""
    return make_served(tmp_path_factory.mktemp("served"), group)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A demo of small size: simulated, prepared, trained, evaluated and exported."""
    return Chain.make(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs, whose tables take seconds to make."""
    file = tmp_path_factory.mktemp("made") / "mlflow.db"
    plant_run(f"sqlite:///{file}", "none", experiment="none", document=False)
    return file


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """A store without runs of the test's own."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture(scope="module")
def joined(group: torch.device) -> Iterator[None]:
    """What trains in this process does so in the process group that it has already."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("recsys.train.distributed.process_group", "pipelines.daily.champion.process_group"):
            patch.setattr(place, lambda: nullcontext(group))
        yield


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


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is trained, which goes on as ever."""
    counted: Counter[str] = Counter()
    for stage, trainer in list(ablation_run.TRAINERS.items()):

        def train(
            config: RunConfig, data: Dataset, out: Path, trainer: Callable[..., Any] = trainer, **options: Any
        ) -> dict[str, Any]:
            counted[str(out.relative_to(out.parents[2]))] += 1
            return trainer(config, data, out, **options)

        monkeypatch.setitem(ablation_run.TRAINERS, stage, train)
    return counted


@pytest.fixture
def one_group(group: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in this process, which has its group already."""

    @contextmanager
    def joined() -> Iterator[torch.device]:
        yield group

    monkeypatch.setattr("recsys.train.distributed.process_group", joined)


@pytest.fixture
def sweep(cli: Cli, one_group: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`recsys sweep` in this process, in a folder with a config and its dataset."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    write_run(tmp_path)
    return lambda *words: cli(*WORDS, *words)
