"""What is read behind a comparison: everything that runs have stored, within bounds, and the names of what they have not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from compare_store import METRICS, Made, filled

from pipelines.comparison import details as run_details
from pipelines.comparison.comparison import Comparison
from pipelines.comparison.details import Details, curve_names, details, leaders
from pipelines.comparison.gains import user_gains
from recsys.track import artefact, artefacts, children, stages

BARE = frozenset({"children", "curves", "cost", "users", "reliability", "slices", "latency"})
MADE = (
    Made("base"),
    Made("better", 0.1),
    Made("old", 0.02, without=frozenset({"children", "latency"})),
    Made("bare", 0.03, without=BARE),
    Made("elsewhere", 0.2, protocol="another"),
    Made("elsewhere 2", 0.25, protocol="another"),
)
STEPS = 450


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Comparison]:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    return uri, filled(uri, folder, MADE, steps=STEPS)


@pytest.fixture(scope="module")
def found(store: tuple[str, Comparison]) -> Details:
    return details(store[1], store[0])


def test_details_of_each_kind(store: tuple[str, Comparison], found: Details) -> None:
    assert set(found.curves) == {"retriever/loss", "retriever/valid/NDCG@10", "ranker/loss", "ranker/valid/AUC/mean"}
    assert set(found.curves["retriever/loss"]) == {0, 1, 2, 4, 5}  # also of the run that has no children
    assert set(found.curves["ranker/loss"]) == {0, 1, 4, 5}
    assert found.slices["NDCG@10"]["cold"][1] == pytest.approx(store[1].runs[1].metrics["slice/cold/NDCG@10"], rel=1e-5)
    assert set(found.reliability) == {"click", "like"}
    assert found.reliability["click"][0][0]["rows"] == 4000
    assert 3 not in found.reliability["click"]


def test_a_long_curve_is_thinned_and_keeps_its_ends(found: Details) -> None:
    steps, values = found.curves["retriever/loss"][0]
    assert len(steps) == len(values) == run_details.POINTS
    assert (steps[0], steps[-1]) == (0, STEPS - 1)
    assert max(np.diff(steps)) <= 3
    assert found.curves["retriever/valid/NDCG@10"][0][0] == list(range(0, STEPS, 5))


def test_losses_are_read_of_the_leaders(store: tuple[str, Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_details, "LOSS_RUNS", 3)
    assert leaders(store[1], 3) == [0, 4, 1]  # the references, then the best of the first group
    found = details(store[1], store[0])
    assert set(found.curves["retriever/loss"]) == {0, 1, 4}
    assert set(found.curves["retriever/valid/NDCG@10"]) == {0, 1, 2, 4, 5}
    assert found.unread == {2, 5}
    assert "loss curve not read" in found.missing[5][-1]


def test_one_validation_metric_of_each_job() -> None:
    names = (
        "a/loss",
        "a/loss/task",
        "a/valid/MRR@10",
        "a/valid/NDCG@5",
        "b/valid/HR@10",
        "c/valid/ECE/x",
        "system/loss",
        "test/loss2",
    )
    assert curve_names(dict.fromkeys(names, 0.0), "test/MRR@10") == [
        "a/loss",
        "system/loss",
        "a/valid/MRR@10",
        "b/valid/HR@10",
        "c/valid/ECE/x",
    ]
    assert "a/valid/NDCG@5" in curve_names(dict.fromkeys(names, 0.0), "test/HR@20")


def test_gains_agree_with_the_differences(store: tuple[str, Comparison], found: Details) -> None:
    assert set(found.gains) == set(METRICS)
    row = store[1].row("test/NDCG@10")
    assert row is not None
    compared = {place: cell.difference for place, cell in enumerate(row.cells) if cell.difference is not None}
    assert set(found.gains["NDCG@10"].runs) == set(compared) == {1, 2, 5}
    for place, difference in compared.items():
        gain = found.gains["NDCG@10"].runs[place]
        assert (gain.wins, gain.losses) == (difference.wins, difference.losses)
        assert gain.wins + gain.losses == sum(gain.count_B)
        assert gain.wins + gain.ties + gain.losses == difference.users


def test_gains_of_users_in_another_order_and_of_some(store: tuple[str, Comparison], tmp_path: Path) -> None:
    comparison = replace(store[1], groups=store[1].groups[:1])
    values = {0: {"a": 0.5, "b": 0.0, "c": 1.0, "d": 0.2}, 1: {"d": 0.2, "c": 0.0, "b": 0.33, "e": 1.0}}
    for place, value in values.items():
        (tmp_path / str(place)).mkdir()
        frame = pl.DataFrame({"user": list(value), "model": "model", "NDCG@10": list(value.values())})
        pl.concat([frame, frame.with_columns(model=pl.lit("popularity"))]).write_parquet(
            tmp_path / str(place) / "per_user.parquet"
        )
    gain = user_gains(comparison, {place: tmp_path / str(place) for place in values})["NDCG@10"].runs[1]
    assert (gain.wins, gain.ties, gain.losses) == (1, 1, 1)  # b, d and c; a and e are of one run only
    assert np.flatnonzero(gain.count_B).tolist() == [0, 26]  # -1, and 0.33 in bins of 0.05 from -1


def test_what_a_run_lacks_is_said(found: Details) -> None:
    assert found.missing[0] == ()
    assert found.missing[2] == ("no latency of the exported bundle",)
    assert len(found.missing[3]) == 6
    assert "no per-user values, so no intervals and no users won or lost" in found.missing[3]


def test_files_that_cannot_be_read_are_absent(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    comparison = filled(uri, tmp_path, (Made("base"), Made("torn", 0.1)), users=20, steps=5)
    folder = artefact(comparison.runs[1].id, "metrics", uri=uri)
    assert folder is not None
    (folder / "per_user.parquet").write_bytes(b"PAR1 torn")
    (folder / "metrics.json").write_text('{"ranking": ')
    missing = details(comparison, uri).missing
    assert missing[0] == ()
    assert missing[1] == (run_details.ABSENT["reliability"], run_details.ABSENT["users"])


def test_reading_many_agrees_with_reading_one(store: tuple[str, Comparison]) -> None:
    uri, runs = store[0], store[1].runs
    some, ids = runs[:4], [run.id for run in runs]
    below = stages(some, store[1].experiment, uri=uri)
    assert below == {run.id: known for run in some if (known := children(run.id, uri=uri))}
    assert set(below) == set(ids[:2])
    places = artefacts(some, "metrics/per_user.parquet", uri=uri)
    one_by_one = {run.id: known for run in some if (known := artefact(run.id, "metrics/per_user.parquet", uri=uri))}
    assert places == one_by_one
    assert set(places) == set(ids[:3])
    assert stages([], store[1].experiment, uri=uri) == {} == artefacts([], "metrics", uri=uri)
