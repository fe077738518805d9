"""What a sweep refuses before it trains: bad input, surroundings that do not fit, another search in the same folder."""

import fcntl
import shutil
from pathlib import Path

import pytest
from conftest import Cli
from sweep_world import trials_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "error: nothing to search: say --search"),
        (["--search", "retriever.fit.epochs: [1, 2]", "--trials", "0"], "error: --trials 0 is too few: say at least 1"),
        (["--search", "retriever.fit.epochs: [1, 2]", "--workers", "0"], "error: --workers 0 is too few"),
        (["--search", "retriever.fit.epochs: [1, 2]", "--seeds", "-1"], "error: --seeds -1 is too few: say at least 0"),
        (
            ["--search", "retriever.fit.epochs: [1, 2]", "--prune", "often"],
            "error: --prune 'often' is unknown: choose median, hyperband, none",
        ),
        (["--search", "retriever.fit.epochs: [1, 2]", "--name", "a/b"], "error: --name 'a/b' cannot be the name of a folder"),
        (
            ["--search", "generator.fit.epochs: [1, 2]", "--stage", "generator"],
            "error: --stage generator: this config trains ['retriever', 'ranker']; it has no `generator` section",
        ),
        (
            ["--search", "max_history: [5, 6]", "--stage", "policy"],
            "error: --stage policy: this config trains ['retriever', 'ranker']; it has no `policy` section",
        ),
        (["--search", "retriever.nice: [1]"], "unknown key 'retriever.nice': choose from"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(sweep: Cli, words: list[str], says: str) -> None:
    done = sweep(*words)
    assert done.code == 2
    assert says in done.said
    assert "Traceback" not in done.said
    assert not Path("ws/sweep").exists()


def test_what_the_surroundings_forbid_is_refused(sweep: Cli, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    search = ["--search", "retriever.fit.epochs: [1, 2]"]
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert "error: recsys sweep starts its own processes, by --workers: start it without torchrun" in sweep(*search).said
    done = cli("sweep", "--config", "planted.yaml", "--workspace", "empty", *search)
    assert "error: empty/dataset holds no dataset: make it with `recsys prepare`" in done.said
    folder = Path("ws/sweep/retriever")
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "error: another process is at the sweep in ws/sweep/retriever: wait for it, or" in sweep(*search).said
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert "error: ws/sweep/retriever cannot be written" in sweep(*search).said


def test_a_changed_search_is_refused_until_it_is_begun_anew(sweep: Cli) -> None:
    short = ["--set", "retriever.fit.epochs=1", "--trials", "1"]
    assert not sweep("--search", "retriever.encoder.dim: [8, 16]", *short).failed
    for words, what in (
        (["--search", "retriever.encoder.dim: [8, 16, 24]", *short], "space"),
        (["--search", "retriever.encoder.dim: [8, 16]", *short, "--set", "seed=2"], "config"),
    ):
        done = sweep(*words)
        assert done.code == 2
        assert f"the sweep in ws/sweep/retriever was begun with another {what}: choose another --name, or --anew" in done.said
    assert not sweep("--search", "retriever.encoder.dim: [8, 16, 24]", *short, "--anew").failed
    assert len(trials_of(Path("ws/sweep/retriever"))) == 1
    assert not sweep(
        "--search", "retriever.encoder.dim: [8, 16, 24]", "--set", "retriever.fit.epochs=1", "--trials", "2"
    ).failed
    assert len(trials_of(Path("ws/sweep/retriever"))) == 2
