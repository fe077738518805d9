"""Comparison over real runs in a real store: what is ranked together, against whom, and that nothing is dropped in silence."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from compare_answers import NDCG, USERS, best, notes, of_users, row, text
from planted_runs import hits, plant_run, rules

from pipelines.comparison.runs import compare
from recsys import track
from recsys.errors import InputError


def file_of(store: str, run_id: str, name: str) -> Path:
    return Path(track.get_run(run_id, uri=store).artefacts) / "metrics" / name


def test_best_is_by_the_direction_of_the_metric(store: str) -> None:
    plant_run(store, "a", metrics={NDCG: 0.2, "test/ECE/click": 0.02, "test/odd": 1.0, "loss": 9.0})
    plant_run(store, "b", metrics={NDCG: 0.1, "test/ECE/click": 0.01, "test/odd": 2.0})
    found = compare("recsys", runs=["a", "b"], uri=store)
    assert [each.metric for each in found.rows] == ["test/ECE/click", NDCG, "test/odd"]
    assert [best(found, metric) for metric in (NDCG, "test/ECE/click", "test/odd")] == [{"a"}, {"b"}, set()]
    assert [each.direction for each in found.rows] == [-1, 1, 0]
    assert (found.main_metric, found.warnings) == (NDCG, ())


def test_a_better_run_is_told_from_chance(store: str) -> None:
    plant_run(store, "base", per_user=of_users(0.10))
    plant_run(store, "twin", per_user=of_users(0.101, seed=1))
    plant_run(store, "better", per_user=of_users(0.16, seed=2))
    found = compare("recsys", runs=["base", "twin", "better"], uri=store)
    (group,) = found.groups
    assert (group.reference, group.chosen, group.hypotheses) == (2, f"the best by {NDCG}", 3)
    base, twin, better = row(found, NDCG).cells
    assert better.difference is None
    for cell, value in ((base, 0.10), (twin, 0.101)):
        assert cell.low is not None
        assert cell.high is not None
        assert cell.low < value < cell.high
        assert cell.difference is not None
        assert cell.difference.mean == pytest.approx(value - 0.16)
        assert cell.difference.low < value - 0.16 < cell.difference.high < 0
        assert cell.difference.shown
        assert not cell.difference.better
        assert cell.difference.losses > cell.difference.wins
        assert cell.difference.users == USERS
        assert max(cell.difference.p, cell.difference.p_t, cell.difference.p_wilcoxon) < cell.difference.p_holm < 0.05

    against = compare("recsys", runs=["twin", "better"], against="base", uri=store)
    assert [run.name for run in against.runs] == ["twin", "better", "base"]
    assert (against.groups[0].reference, against.groups[0].hypotheses) == (2, 2)
    twin, better, base = row(against, NDCG).cells
    assert base.difference is None
    assert twin.difference is not None
    assert better.difference is not None
    assert (twin.difference.shown, better.difference.shown, better.difference.better) == (False, True, True)
    shown = text(against)
    assert "R is base" in shown
    assert "0.1600" in shown
    (line,) = (line for line in shown.splitlines() if line.startswith(f"│ {NDCG} ") and "±" in line)
    assert (line.count("▲"), line.count("▼")) == (1, 0)


def test_the_test_is_that_of_the_library(store: str) -> None:
    from recsys.metrics.significance import mean_interval, paired_bootstrap

    a_U, b_U = hits(USERS, 0.10), hits(USERS, 0.12, 3)
    plant_run(store, "a", per_user={"NDCG@10": a_U, "HR@10": b_U})
    plant_run(store, "b", per_user={"NDCG@10": b_U, "HR@10": a_U})
    cell = row(compare("recsys", runs=["a", "b"], uri=store), NDCG).cells[0]
    alone = paired_bootstrap(a_U, b_U, rng=np.random.default_rng(0))
    assert cell.difference is not None
    assert (cell.difference.low, cell.difference.high, cell.difference.p) == pytest.approx(alone[1:], abs=1e-6)
    assert (cell.low, cell.high) == pytest.approx(mean_interval(a_U, rng=np.random.default_rng(0)), abs=1e-6)


def test_other_protocols_and_data_are_not_ranked_together_and_the_rules_that_differ_are_named(store: str) -> None:
    other = rules(split={"kind": "last out"}, seen_items="kept")
    for name, share, protocol, data in (
        ("a", 0.3, rules(), "d1"), ("b", 0.2, rules(), "d1"), ("c", 0.9, other, "d1"), ("d", 0.8, rules(), "d2")
    ):  # fmt: skip
        plant_run(store, name, per_user=of_users(share), protocol=protocol, data=data)
    found = compare("recsys", runs=list("abcd"), uri=store)
    assert best(found, NDCG) == {"a"}
    assert [group.places for group in found.groups] == [(0, 1), (2,), (3,)]
    assert [cell.difference is not None for cell in row(found, NDCG).cells] == [False, True, False, False]
    different, differ, data = found.warnings
    assert "different protocols (time split [" in different
    for rule in (
        "split.kind last out instead of time",
        "split.test_share none instead of 0.1",
        "seen_items kept instead of removed",
    ):
        assert rule in differ
    assert "score_ties" not in differ
    assert "different datasets (d1; d2)" in data
    assert "warning: the runs have different protocols" in text(found)


def test_runs_that_are_not_finished_or_state_no_protocol_are_shown_and_not_ranked(store: str) -> None:
    plant_run(store, "a", metrics={"test/HR@10": 0.1, "test/MRR@10": 0.1})
    plant_run(store, "b", metrics={"test/HR@10": 0.2})
    plant_run(store, "silent", metrics={"test/HR@10": 0.8}, protocol=None)
    with (
        suppress(RuntimeError),
        track.start_run("recsys", "broken", data="d1", uri=store, tags={track.PROTOCOL: "time"}) as run,
    ):
        run.metric("test/HR@10", 0.9)
        raise RuntimeError
    open_run = track.start_run("recsys", "running", data="d1", uri=store, tags={track.PROTOCOL: "time"})
    open_run.metric("test/HR@10", 0.95)
    open_run.flush()
    found = compare("recsys", uri=store)
    assert [each.name for each in found.runs] == ["running", "broken", "silent", "b", "a"]
    assert best(found, "test/HR@10") == {"b"}
    assert [cell.value for cell in row(found, "test/MRR@10").cells] == [None, None, None, None, 0.1]
    assert "failed, so not ranked" in notes(found, "broken")
    assert "running, so not ranked" in notes(found, "running")
    assert "has not measured test/MRR@10" in notes(found, "b")
    shown = text(found)
    for part in ("running RUNNING, broken FAILED", "no protocol or data is stated, so shown and not ranked: silent", "0.9000"):
        assert part in shown
    (line,) = [line for line in shown.splitlines() if "test/MRR@10" in line and line.startswith("│")]
    assert [cell.strip() for cell in line.strip("│").split("│")[1:]] == ["-", "-", "-", "-", "0.1000"]


def test_a_deleted_run_that_is_named_is_shown_as_deleted(store: str) -> None:
    from mlflow.tracking import MlflowClient

    plant_run(store, "kept", per_user=of_users(0.1))
    gone = plant_run(store, "gone", per_user=of_users(0.5))
    MlflowClient(store).delete_run(gone)
    assert [run.name for run in compare("recsys", uri=store).runs] == ["kept"]
    for name in (gone[:10], "gone"):
        found = compare("recsys", runs=["kept", name], uri=store)
        assert [run.status for run in found.runs] == ["FINISHED", "DELETED"]
        assert f"deleted, so not ranked: `mlflow runs restore --run-id {gone}`" in notes(found, "gone")
        assert best(found, NDCG) == set()
        assert found.groups[0].reference == 0
    with pytest.raises(InputError, match="--against 'gone' is DELETED"):
        compare("recsys", against="gone", uri=store)


def test_what_a_run_has_not_kept_is_said(store: str) -> None:
    plant_run(store, "whole", per_user={**of_users(0.1), "HR@10": hits(USERS, 0.2)})
    plant_run(store, "no users", metrics={NDCG: 0.3})
    plant_run(store, "less", per_user=of_users(0.1, 2), metrics={"test/HR@10": 0.2})
    plant_run(store, "untested", metrics={"retriever/loss": 1.0})
    plant_run(store, "other values", per_user=of_users(0.1, 3), metrics={NDCG: 0.4})
    torn = plant_run(store, "torn", per_user=of_users(0.1, 4))
    file_of(store, torn, "per_user.parquet").write_bytes(b"PAR1")
    old = plant_run(store, "old", per_user=of_users(0.1, 5))
    file_of(store, old, "metrics.json").write_text('{"protocol": "time split", "retrieval": {}}')
    garbled = plant_run(store, "garbled", per_user=of_users(0.1, 6))
    file_of(store, garbled, "metrics.json").write_text("{")
    twice = plant_run(store, "twice", per_user=of_users(0.1, 7))
    users = file_of(store, twice, "per_user.parquet")
    pl.concat([pl.read_parquet(users)] * 2).write_parquet(users)
    found = compare("recsys", limit=None, uri=store)
    for name, note in {
        "no users": "no per-user values, so no interval: evaluate again",
        "less": "no per-user values of HR@10",
        "untested": "not evaluated: run `recsys evaluate`",
        "other values": "users' mean of NDCG@10 is 0.1000 and the run's 0.4000",
        "torn": "per_user.parquet cannot be read",
        "old": "metrics.json is of an older version",
        "garbled": "metrics.json cannot be read",
        "twice": "per_user.parquet names a user twice",
    }.items():
        assert note in notes(found, name)
    assert notes(found, "whole") == ""
    low = {run.name: cell.low for run, cell in zip(found.runs, row(found, NDCG).cells, strict=True)}
    assert {name for name, each in low.items() if each is not None} == {"whole", "less", "old", "garbled"}
    assert best(found, NDCG) == {"other values"}  # by its metric: the values only say how sure that is
    shown = text(found)
    for run in found.runs:
        assert run.name in shown
        for note in found.notes[found.runs.index(run)]:
            assert note in shown.replace("\n", " ")


def test_runs_that_judged_other_users_are_compared_over_those_that_both_judged(store: str) -> None:
    value_U = hits(USERS, 0.2)
    plant_run(store, "all", per_user={"NDCG@10": value_U})
    plant_run(store, "upper", per_user={"NDCG@10": value_U[200:][::-1] * 0.5}, users=np.arange(200, USERS)[::-1])
    plant_run(store, "others", per_user={"NDCG@10": value_U[:300] * 0.5}, users=np.arange(USERS, USERS + 300))
    found = compare("recsys", runs=["all", "upper", "others"], against="all", uri=store)
    _, upper, others = row(found, NDCG).cells
    assert upper.difference is not None
    assert upper.difference.users == 800
    assert upper.difference.mean == pytest.approx(-0.5 * value_U[200:].mean())
    assert (upper.difference.wins, upper.difference.losses) == (0, int(value_U[200:].sum()))
    assert "judged 800 users, the reference 1,000: their difference is over the 800 that both judged" in notes(found, "upper")
    assert others.difference is None
    assert others.low is not None
    assert "over the 0 that both judged" in notes(found, "others")


def test_a_model_that_its_floor_equals_is_marked(store: str) -> None:
    floors = {"floor/popularity/NDCG@10": 0.05, "floor/transitions/NDCG@10": 0.13}
    plant_run(store, "above", metrics={**floors, NDCG: 0.15})
    plant_run(store, "equal", metrics={**floors, NDCG: 0.13})
    found = compare("recsys", runs=["above", "equal"], uri=store)
    assert [cell.below_floor for cell in row(found, NDCG).cells] == [False, True]
    assert best(found, "floor/transitions/NDCG@10") == set()
    assert "✗ 0.1300" in text(found)


def test_an_interval_that_the_run_has_measured_itself_is_taken(store: str) -> None:
    plant_run(store, "a", metrics={"test/AUC/like": 0.7, "test/AUC_low/like": 0.68, "test/AUC_high/like": 0.72})
    found = compare("recsys", uri=store)
    assert [each.metric for each in found.rows] == ["test/AUC/like"]
    assert (row(found, "test/AUC/like").cells[0].low, row(found, "test/AUC/like").cells[0].high) == (0.68, 0.72)
    assert "0.7000 ±.0200" in text(found)


def test_a_consensus_counts_tasks_and_the_mean_follows_the_widest_scale(store: str) -> None:
    for name, ndcg, click, like in (("a", 0.12, 0.62, 0.60), ("b", 0.11, 0.61, 0.61), ("c", 0.10, 0.60, 0.90)):
        plant_run(store, name, metrics={NDCG: ndcg, "test/AUC/click": click, "test/AUC/like": like})
    found = compare("recsys", runs=["a", "b", "c"], uri=store).consensus
    assert found is not None
    assert found.over == (NDCG, "test/AUC/click", "test/AUC/like")
    assert found.points == {"a": 4.0, "b": 3.0, "c": 2.0}  # beaten: a 2, 2, 0; b 1, 1, 1; c 0, 0, 2
    assert found.order == ("a", "b", "c")
    assert found.mean == pytest.approx({"a": 0.4467, "b": 0.4433, "c": 0.5333}, abs=1e-4)
    assert "Borda" in text(compare("recsys", uri=store))


def test_a_consensus_over_data_sets_takes_the_names_that_all_have(store: str) -> None:
    for data, shares in {"d1": (0.1, 0.2), "d2": (0.3, 0.4), "d3": (0.6, 0.5)}.items():
        for name, share in zip(("old", "new"), shares, strict=True):
            plant_run(store, name, per_user=of_users(share, seed=len(name)), data=data, tags={"config": f"config-{data}"})
    plant_run(store, "only here", per_user=of_users(0.9), data="d1", tags={"config": "config-d1"})
    found = compare("recsys", limit=None, uri=store).consensus
    assert found is not None
    assert set(found.over) == {f"{NDCG} on config-{data}" for data in ("d1", "d2", "d3")}
    assert (found.order, found.points, found.level) == (("new", "old"), {"old": 1.0, "new": 2.0}, "users")


def test_a_metric_that_some_users_do_not_have_is_compared_over_those_who_have_it(store: str) -> None:
    first_U = 0.4 + hits(USERS, 0.2, 1)
    other_U = first_U + 0.05 + 0.1 * hits(USERS, 0.5, 2, shared_seed=7)
    nothing_U = np.full(USERS, np.nan)
    for name, value_U, lacks in (("first", first_U, 40), ("other", other_U, 60)):
        ild_U = value_U.copy()
        ild_U[:lacks] = np.nan
        means = {"test/ILD@10": float(np.nanmean(ild_U))}
        plant_run(store, name, per_user={**of_users(0.1), "ILD@10": ild_U, "x@10": nothing_U}, metrics=means)
    found = compare("recsys", against="first", uri=store)
    cells = dict(zip([run.name for run in found.runs], row(found, "test/ILD@10").cells, strict=True))
    for name, value_U, lacks in (("first", first_U, 40), ("other", other_U, 60)):
        cell = cells[name]
        assert cell.low is not None
        assert cell.high is not None
        assert cell.low < value_U[lacks:].mean() < cell.high
    gap = cells["other"].difference
    assert gap is not None
    assert gap.users == USERS - 60
    assert gap.mean == pytest.approx((other_U - first_U)[60:].mean())
    assert gap.shown
    assert gap.better
    assert "evaluate again" not in notes(found, "first") + notes(found, "other")
    assert row(found, NDCG).cells[0].low is not None
