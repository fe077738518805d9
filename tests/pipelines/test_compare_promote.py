"""Comparison and promotion over real runs in a real store: the order of things, and that each gate can fail."""

import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from pipelines import compare, promote
from recsys import track
from recsys.errors import InputError

GOOD = {"test/NDCG@10": 0.15, "floor/popularity/NDCG@10": 0.05, "floor/transitions/NDCG@10": 0.13, promote.PARITY: 3e-8}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('compare') / 'mlflow.db'}"


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^a-z0-9]+", "-", request.node.name)


@pytest.fixture
def add_run(uri: str, experiment: str) -> Callable[..., str]:
    def add(name: str, metrics: Mapping[str, float], *, protocol: str = "time", data: str = "d1") -> str:
        with track.start_run(experiment, name, data=data, uri=uri, tags={track.PROTOCOL: protocol}) as run:
            run.metrics(metrics)
        return run.run_id

    return add


@pytest.fixture
def candidate(uri: str, experiment: str, tmp_path: Path) -> Callable[..., int]:
    """Log a run with a bundle, register it under the test's name as the candidate and return its version."""

    def add(metrics: Mapping[str, float], *, protocol: str = "time", data: str = "d1") -> int:
        bundle = tmp_path / "bundle"
        bundle.mkdir(exist_ok=True)
        (bundle / "manifest.json").write_text("{}")
        with track.start_run(experiment, "r", data=data, uri=uri, tags={track.PROTOCOL: protocol}) as run:
            run.metrics(metrics)
            run.artefact(bundle)
        return track.register(run.run_id, experiment, promote.CANDIDATE, uri=uri)

    return add


def text(shown: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def row_of(comparison: compare.Comparison, metric: str) -> compare.Row:
    return next(row for row in comparison.rows if row.metric == metric)


def alias(uri: str, model: str, name: str) -> int | None:
    found = track.get_alias(model, name, uri=uri)
    return found.number if found else None


def test_best_is_by_the_direction_of_the_metric(uri: str, experiment: str, add_run: Callable[..., str]) -> None:
    add_run("a", {"test/NDCG@10": 0.2, "test/ECE/click": 0.02, "test/odd": 1.0, "loss": 9.0})
    add_run("b", {"test/NDCG@10": 0.1, "test/ECE/click": 0.01, "test/odd": 2.0})
    found = compare.compare(experiment, runs=["a", "b"], uri=uri)
    assert [row.metric for row in found.rows] == ["test/ECE/click", "test/NDCG@10", "test/odd"]
    assert row_of(found, "test/NDCG@10").best == {0}
    assert row_of(found, "test/ECE/click").best == {1}
    assert row_of(found, "test/odd").best == set()
    assert found.warnings == ()


def test_other_protocols_and_datasets_are_warned_about_and_not_ranked_together(
    uri: str, experiment: str, add_run: Callable[..., str]
) -> None:
    for name, score, protocol, data in (
        ("a", 0.3, "time", "d1"),
        ("b", 0.2, "time", "d1"),
        ("c", 0.9, "last", "d1"),
        ("d", 0.8, "time", "d2"),
    ):
        add_run(name, {"test/NDCG@10": score}, protocol=protocol, data=data)
    found = compare.compare(experiment, runs=list("abcd"), uri=uri)
    assert row_of(found, "test/NDCG@10").best == {0}
    assert "different protocols (time; last)" in found.warnings[0]
    assert "different datasets (d1; d2)" in found.warnings[1]
    assert "warning: the runs have different protocols" in text(compare.render(found))


def test_unfinished_runs_are_shown_and_not_ranked_and_missing_values_are_dashes(
    uri: str, experiment: str, add_run: Callable[..., str]
) -> None:
    add_run("a", {"test/HR@10": 0.1, "test/MRR@10": 0.1})
    add_run("b", {"test/HR@10": 0.2})
    with (
        suppress(RuntimeError),
        track.start_run(experiment, "broken", data="d1", uri=uri, tags={track.PROTOCOL: "time"}) as run,
    ):
        run.metric("test/HR@10", 0.9)
        raise RuntimeError
    found = compare.compare(experiment, uri=uri)
    assert [each.name for each in found.runs] == ["broken", "b", "a"]
    assert row_of(found, "test/HR@10").best == {1}
    assert row_of(found, "test/MRR@10").values == (None, None, 0.1)
    shown = text(compare.render(found))
    assert "failed" in shown
    assert "broken FAILED" in shown
    (line,) = [line for line in shown.splitlines() if "test/MRR@10" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")[1:]] == ["-", "-", "0.1000"]


def test_a_model_that_its_floor_equals_is_marked(uri: str, experiment: str, add_run: Callable[..., str]) -> None:
    add_run("above", GOOD)
    add_run("equal", {**GOOD, "test/NDCG@10": 0.13})
    found = compare.compare(experiment, runs=["above", "equal"], uri=uri)
    assert row_of(found, "test/NDCG@10").below_floor == {1}
    assert row_of(found, "floor/transitions/NDCG@10").best == set()
    assert "▼ 0.1300" in text(compare.render(found))


def test_runs_are_chosen_by_name_or_id_and_metrics_by_pattern(uri: str, experiment: str, add_run: Callable[..., str]) -> None:
    ids = [add_run(f"run-{number}", {"test/NDCG@10": number / 100, "valid/NDCG@10": 0.1}) for number in range(8)]
    assert [run.name for run in compare.compare(experiment, uri=uri).runs] == [f"run-{number}" for number in (7, 6, 5, 4, 3, 2)]
    found = compare.compare(experiment, runs=[ids[0][:12], "run-5"], metrics=["valid/*"], uri=uri)
    assert [run.name for run in found.runs] == ["run-0", "run-5"]
    assert [row.metric for row in found.rows] == ["valid/NDCG@10"]
    everything = compare.compare(experiment, limit=8, uri=uri)
    assert text(compare.render(everything)).count("Experiment") == 2
    with pytest.raises(InputError, match=r"No run is named 'zzz'.*run-7"):
        compare.compare(experiment, runs=["zzz"], uri=uri)
    with pytest.raises(InputError, match=r"matches 'tset/\*': choose among test/NDCG@10, valid/NDCG@10"):
        compare.compare(experiment, metrics=["tset/*"], uri=uri)


def test_json_is_strict_json(uri: str, experiment: str, add_run: Callable[..., str]) -> None:
    add_run("a", {**GOOD, "test/AUC/click": float("nan")})
    (run,) = json.loads(json.dumps(compare.compare(experiment, uri=uri).to_json(), allow_nan=False))["runs"]
    assert run["metrics"]["test/AUC/click"] is None
    assert run["metrics"]["test/NDCG@10"] == 0.15


def test_the_first_good_candidate_becomes_champion_and_a_better_one_replaces_it(
    uri: str, experiment: str, candidate: Callable[..., int]
) -> None:
    assert candidate(GOOD) == 1
    first = promote.promote(experiment, uri=uri)
    assert (first.passed, first.promoted, first.champion) == (True, True, None)
    assert candidate({**GOOD, "test/NDCG@10": 0.16}) == 2
    second = promote.promote(experiment, uri=uri)
    assert (second.promoted, second.champion) == (True, 1)
    assert [alias(uri, experiment, name) for name in ("champion", "previous", "candidate")] == [2, 1, 2]
    again = promote.promote(experiment, uri=uri)
    assert (again.passed, again.promoted) == (True, False)
    assert alias(uri, experiment, "previous") == 1
    found = track.get_alias(experiment, "champion", uri=uri)
    assert found is not None
    assert found.tags["promotion/decision"] == "passed"
    assert found.tags["promotion/floor"].startswith("pass: value 0.16, limit 0.13")


@pytest.mark.parametrize(
    ("metrics", "gate", "reason"),
    [
        ({**GOOD, promote.PARITY: 2e-4}, "parity", "largest difference"),
        ({**GOOD, promote.PARITY: float("nan")}, "parity", "largest difference"),
        ({key: GOOD[key] for key in GOOD if key != promote.PARITY}, "parity", "was not logged"),
        ({**GOOD, "test/NDCG@10": 0.13}, "floor", "best floor, transitions"),
        ({**GOOD, "test/NDCG@10": float("nan")}, "floor", "best floor, transitions"),
        ({"test/NDCG@10": 0.5, promote.PARITY: 0.0}, "floor", "no floor/<name>/NDCG@10 was logged"),
        ({key: GOOD[key] for key in GOOD if key != "test/NDCG@10"}, "floor", "evaluate the run"),
    ],
)
def test_each_gate_refuses(
    uri: str, experiment: str, candidate: Callable[..., int], metrics: Mapping[str, float], gate: str, reason: str
) -> None:
    candidate(metrics)
    decision = promote.promote(experiment, uri=uri)
    (failed,) = [each for each in decision.gates if not each.passed]
    assert failed.name == gate
    assert reason in failed.note
    assert not decision.promoted
    assert alias(uri, experiment, "champion") is None
    found = track.get_alias(experiment, "candidate", uri=uri)
    assert found is not None
    assert found.tags["promotion/decision"] == "refused"
    assert found.tags[f"promotion/{gate}"].startswith("fail")
    assert f"Not promoted: {gate} failed." in text(promote.render(decision))


def test_a_worse_candidate_leaves_the_champion(uri: str, experiment: str, candidate: Callable[..., int]) -> None:
    candidate(GOOD)
    promote.promote(experiment, uri=uri)
    candidate({**GOOD, "test/NDCG@10": 0.14})
    decision = promote.promote(experiment, uri=uri)
    assert [(gate.name, gate.passed) for gate in decision.gates] == [("parity", True), ("floor", True), ("champion", False)]
    assert [alias(uri, experiment, name) for name in ("champion", "previous")] == [1, None]


@pytest.mark.parametrize(("protocol", "data", "said"), [("last", "d1", "protocol last"), ("time", "d2", "data d2")])
def test_a_champion_measured_otherwise_is_reported_and_does_not_block(
    uri: str, experiment: str, candidate: Callable[..., int], protocol: str, data: str, said: str
) -> None:
    candidate({**GOOD, "test/NDCG@10": 0.9})
    promote.promote(experiment, uri=uri)
    candidate(GOOD, protocol=protocol, data=data)
    decision = promote.promote(experiment, uri=uri)
    assert f"not comparable: {said}" in decision.gates[2].note
    assert decision.promoted


def test_a_dry_run_writes_nothing(uri: str, experiment: str, candidate: Callable[..., int]) -> None:
    candidate(GOOD)
    decision = promote.promote(experiment, dry_run=True, uri=uri)
    assert (decision.passed, decision.promoted) == (True, False)
    assert alias(uri, experiment, "champion") is None
    found = track.get_alias(experiment, "candidate", uri=uri)
    assert found is not None
    assert not [key for key in found.tags if key.startswith("promotion/")]
    assert json.loads(json.dumps(decision.to_json()))["gates"][1]["limit"] == 0.13


def test_without_a_candidate_the_error_says_so(uri: str) -> None:
    with pytest.raises(InputError, match="'nobody' has no version with the alias 'candidate'"):
        promote.promote("nobody", uri=uri)
