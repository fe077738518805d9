"""How a comparison is shown: the table at every width, what is chosen for it, JSON, and the command."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from compare_answers import NDCG, USERS, of_users, text
from conftest import Cli
from planted_runs import hits, plant_run

from pipelines.comparison.changes import in_words
from pipelines.comparison.runs import compare
from recsys.errors import InputError


def test_runs_are_chosen_by_name_or_id_and_metrics_by_pattern(store: str) -> None:
    ids = [plant_run(store, f"run-{n}", metrics={NDCG: n / 100, "valid/NDCG@10": 0.1}, document=False) for n in range(8)]
    assert [run.name for run in compare("recsys", uri=store).runs] == [f"run-{number}" for number in (7, 6, 5, 4, 3, 2)]
    found = compare("recsys", runs=[ids[0][:12], "run-5"], metrics=["valid/*"], uri=store)
    assert [run.name for run in found.runs] == ["run-0", "run-5"]
    assert [each.metric for each in found.rows] == ["valid/NDCG@10"]
    assert len(compare("recsys", limit=None, uri=store).runs) == 8
    with pytest.raises(InputError, match=r"No run is named 'zzz'.*run-7"):
        compare("recsys", runs=["zzz"], uri=store)
    with pytest.raises(InputError, match=r"matches 'tset/\*': choose among test/NDCG@10, valid/NDCG@10"):
        compare("recsys", metrics=["tset/*"], uri=store)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_many_runs_are_lines_with_the_best_first_and_every_one_is_there(store: str, width: int) -> None:
    for n in range(8):
        costs = {"cost/train_s": 10.0 * n, "export/latency_p50_ms": 1.5, "floor/popularity/NDCG@10": 0.02}
        plant_run(store, f"run-{n}", per_user=of_users(0.10 + n / 100, seed=n), metrics=costs)
    found = compare("recsys", limit=None, uri=store)
    shown = text(found, width)
    assert max(map(len, shown.splitlines())) <= width
    lines = [line for line in shown.splitlines() if "run-" in line and "0.1" in line]
    assert [line.split()[0] for line in lines] == [f"run-{n}" for n in reversed(range(8))]
    assert ("★ 0.1700 ±.0" if width > 80 else "★ 0.1700") in lines[0]  # what does not fit goes on in the next line
    assert shown.count("▼") >= 2  # the last one's, and the legend's
    assert "corrected for 28 comparisons" in shown
    assert "floor 0.0200 (popularity)" in shown.replace("\n", " ")
    assert "…" not in "".join(lines)


def test_json_is_strict_json(store: str) -> None:
    plant_run(store, "a", per_user=of_users(0.1), metrics={"test/AUC/click": float("nan")})
    plant_run(store, "b", per_user=of_users(0.1, 1), metrics={"test/AUC/click": 0.6})
    plant_run(store, "twin of b", per_user=of_users(0.1, 1))
    found = json.loads(json.dumps(compare("recsys", runs=["a", "b", "twin of b"], uri=store).to_json(), allow_nan=False))
    assert found["runs"][0]["metrics"]["test/AUC/click"] is None
    assert found["runs"][0]["metrics"][NDCG] == 0.1
    assert {run["name"]: sorted(run["differences"]) for run in found["runs"]} == {"a": [], "b": [NDCG], "twin of b": [NDCG]}


def test_the_command_shows_compares_and_says_what_is_wrong(cli: Cli, store: str) -> None:
    plant_run(store, "base", per_user=of_users(0.1))
    plant_run(store, "better", per_user=of_users(0.2, 1))
    done = cli("compare", "base", "--against", "better", "--store", store, "--json")
    assert done.code == 0
    assert json.loads(done.out)["groups"][0]["chosen"] == "named with --against"
    assert "R is better" in done.said
    assert cli("compare", "--all", "--store", store).code == 0
    for words, said in {
        ("compare", "nobody"): "No run is named 'nobody'",
        ("compare", "--experiment", "nothing"): "no experiment 'nothing'",
        ("compare", "--against", "nobody"): "No run is named 'nobody'",
    }.items():
        failed = cli(*words, "--store", store)
        assert failed.code == 2
        assert said in failed.said


def test_a_store_of_an_older_version_is_said_to_be_one(cli: Cli, store: str, tmp_path: Path) -> None:
    plant_run(store, "a", metrics={NDCG: 0.1})
    old = shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "old.db")
    with sqlite3.connect(old) as database:
        database.execute("UPDATE alembic_version SET version_num = 'acf3f17fdcc7'")
    done = cli("compare", "--store", f"sqlite:///{old}")
    assert done.code == 2
    assert "another schema" in done.said
    assert "mlflow db upgrade" in done.said


def test_what_sets_the_runs_apart_is_said(store: str) -> None:
    """Of three runs two have the usual encoder; what the other choice leaves no room for is not said to be missing."""
    plain, other = (
        {"seed": 1, "encoder": {"kind": "sasrec", "heads": 1}},
        {"seed": 1, "encoder": {"kind": "hstu", "time": "yes"}},
    )
    for name, params in (("a", plain), ("b", plain), ("c", other)):
        plant_run(store, name, per_user={"NDCG@10": hits(USERS, 0.3)}, params=params)
    found = compare("recsys", runs=["a", "b", "c"], uri=store)
    assert found.changes == ({}, {}, {"encoder.kind": "hstu", "encoder.time": "yes"})
    assert "encoder.kind=hstu, encoder.time=yes" in text(found)
    assert found.to_json()["runs"][2]["changes"] == {"encoder.kind": "hstu", "encoder.time": "yes"}
    assert in_words({str(n): "x" for n in range(9)}, shown=2) == "0=x, 1=x and 7 more"


def test_a_narrow_terminal_has_runs_as_rows(store: str) -> None:
    for name in "abcd":
        plant_run(store, f"a run with a long name {name}", per_user={"NDCG@10": hits(USERS, 0.3)})
    found = compare("recsys", uri=store)
    assert "less R" not in text(found, 200)
    narrow = text(found, 80)
    assert "less R" in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_the_main_metric_is_of_what_is_shown_and_of_the_first_k(store: str) -> None:
    values = {"NDCG@5": hits(USERS, 0.1), "NDCG@10": hits(USERS, 0.2)}
    for name in ("one", "two"):
        plant_run(store, name, per_user=values, params={"evaluation": {"ks": [10, 5]}})
    assert compare("recsys", uri=store).main_metric == NDCG
    assert compare("recsys", metrics=["test/*@5"], uri=store).main_metric == "test/NDCG@5"


def test_a_pattern_without_a_metric_names_kinds_and_not_hundreds_of_metrics(store: str) -> None:
    many = {f"slice/s{each}/{name}": 0.1 for each in range(100) for name in ("NDCG@10", "HR@10")}
    plant_run(store, "one", metrics={NDCG: 0.1, **many})
    with pytest.raises(InputError, match=r"choose among test/NDCG@10, slice/s0/\*") as caught:
        compare("recsys", metrics=["nothing*"], uri=store)
    assert len(str(caught.value)) < 1000


def test_of_many_figures_of_floors_those_of_the_main_metric_are_shown(store: str) -> None:
    more = {
        f"floor/{name}/{metric}@{k}": 0.1 for name in "abc" for metric in ("NDCG", "HR", "MRR", "MAP") for k in range(5, 12)
    }
    plant_run(store, "one", per_user={"NDCG@10": hits(USERS, 0.3)}, metrics=more)
    shown = text(compare("recsys", uri=store))
    assert "floor/a/NDCG@10" in shown
    assert "floor/a/HR@10" not in shown
    assert "81 more figures of floors" in shown
    assert "floor/a/HR@10" in text(compare("recsys", metrics=["floor/*"], uri=store))
