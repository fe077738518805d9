"""The leaderboard on a simulated log: trained by the commands, kept, and held against what is expected."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks import measure
from benchmarks.quality import __main__ as leaderboard
from benchmarks.quality.entries import Entry, Known, Published, read
from benchmarks.quality.seeds import Trained
from benchmarks.quality.verdicts import row, verdict
from pipelines.workspace import config_path
from recsys.config import load
from recsys.errors import InputError
from recsys.protocol import Protocol
from recsys.simulate import Simulation, simulate

FEW = {"epochs": 1, "batch_size": 128}


@pytest.fixture
def small(tmp_path: Path) -> Entry:
    """An entry whose data set is a simulated log in tmp_path/log; its popularity floor is exact, its AUC lies far off."""
    simulate(Simulation(users=100, items=40, events=4000, days=20, seed=1), tmp_path / "log")
    tree = yaml.safe_load(config_path("demo").read_text())
    tree["retriever"] = {"encoder": {"kind": "mean_pooling", "dim": 8}, "fit": FEW}
    tree["ranker"] = {"fit": FEW}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Entry(
        title="small", data="log", config=str(path), seeds=(1,), minutes=1, hardware="any", tolerance_from="none",
        protocol=Protocol.of(load(path)).line, shown=("test/NDCG@10",),
        expected={"test/AUC/click": Known(value=0.99, tolerance=0.01), "test/AUC/buy": Known(value=0.9, tolerance=0.1)},
        published=(Published(method="paper", source="2020", metrics={"test/NDCG@10": 0.25}),),
    )  # fmt: skip


def test_an_entry_is_trained_by_commands_once_and_judged(
    small: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leaderboard, "entries", lambda: {"small": small})
    monkeypatch.setattr(measure, "OUT", tmp_path / "out")
    words = ["--data", str(tmp_path), "--workspace", str(tmp_path / "work")]
    assert leaderboard.main(words) == 1
    first = capsys.readouterr()
    facts = json.loads((tmp_path / "out" / "quality.json").read_text())
    rows = {each["metric"]: each for each in facts["entries"]["small"]["rows"]}
    assert {name: each["verdict"] for name, each in rows.items()} == {
        "test/AUC/click": "below", "test/AUC/buy": "missing", "test/NDCG@10": "shown",
    }  # fmt: skip
    assert facts["outside"] == ["small test/AUC/click is below", "small test/AUC/buy is missing"]
    assert rows["test/NDCG@10"]["published"] == {"paper": 0.25}
    low, high = rows["test/NDCG@10"]["interval"]
    assert low < rows["test/NDCG@10"]["mean"] < high
    metrics = json.loads((tmp_path / "work" / "small-1" / "metrics" / "metrics.json").read_text())["retrieval"]
    assert rows["test/NDCG@10"]["mean"] == metrics["model"]["NDCG@10"]
    assert rows["test/NDCG@10"]["floor"][1] == max(each["NDCG@10"] for each in metrics["floor"].values())
    assert "0.2500 (paper)" in first.out
    checkpoint = (tmp_path / "work" / "small-1" / "ranker" / "manifest.json").stat().st_mtime_ns
    assert leaderboard.main(words) == 1
    assert "small seed 1: kept, of commit" in capsys.readouterr().err
    assert (tmp_path / "work" / "small-1" / "ranker" / "manifest.json").stat().st_mtime_ns == checkpoint


def test_a_data_set_that_is_not_there_fails_its_entry_and_no_other(
    small: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = small.model_copy(update={"data": "nowhere"})
    monkeypatch.setattr(leaderboard, "entries", lambda: {"gone": gone})
    monkeypatch.setattr(measure, "OUT", tmp_path / "out")
    assert leaderboard.main(["--data", str(tmp_path), "--workspace", str(tmp_path / "work")]) == 1
    assert "has no folder nowhere" in capsys.readouterr().err


def test_every_seed_has_to_be_within() -> None:
    known = Known(value=0.5, tolerance=0.1)
    assert verdict([0.41, 0.59], known) == "within"
    assert verdict([0.3, 0.7], known) == "below"  # their mean is what is expected
    assert verdict([0.5, 0.7], known) == "above"
    assert verdict([float("nan")], known) == "below"
    assert verdict([0.5], None) == "shown"


def test_the_interval_of_an_auc_is_the_mean_of_the_seeds(small: Entry, tmp_path: Path) -> None:
    ends = ((0.60, 0.68), (0.64, 0.70))
    trained = [
        Trained(seed, {"test/AUC/click": 0.65, "test/AUC_low/click": low, "test/AUC_high/click": high}, 1, "c", False, tmp_path)
        for seed, (low, high) in enumerate(ends, 1)
    ]
    found = row(small, "test/AUC/click", trained)
    assert found.interval == pytest.approx((0.62, 0.69))
    assert (found.mean, found.spread, found.floor) == (pytest.approx(0.65), 0.0, None)


def test_a_misspelt_key_of_an_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("titel: x\n")
    with pytest.raises(InputError, match=r"x\.yaml: .*Field required"):
        read(path)
