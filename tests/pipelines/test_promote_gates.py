"""Each gate passes and fails by its own number, at its own limit, and says how to mend what was not measured."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from promotion_world import METRIC, STANDARD, values

from pipelines.promotion.facts import Facts, Measured
from pipelines.promotion.gate import Gate
from pipelines.promotion.gates import judge_facts
from recsys.promotion_config import PromotionConfig
from recsys.track import DATA, PROTOCOL, RunSummary, Version

FLOOR_U = values(0.10, seed=1)
CHAMPION_U = values(0.2, seed=2)


def metrics(mean: float = 0.2) -> dict[str, float]:
    return {
        f"test/{METRIC}": mean, f"floor/popularity/{METRIC}": 0.1, "export/parity_max_error": 1e-6,
        **{f"slice/{name}/{METRIC}": mean for name in STANDARD},
    }  # fmt: skip


def measured(
    number: int = 2, value_U: np.ndarray | None = None, *, change: Mapping[str, float] | None = None, lack: str = "",
    protocol: str = "p1", data: str = "d1", slice_users: Mapping[str, int] | None = None, tags: Mapping[str, str] | None = None,
    lost: tuple[str, ...] = (), floor_U: np.ndarray = FLOOR_U,
) -> Measured:  # fmt: skip
    value_U = CHAMPION_U if value_U is None else value_U
    logged = {name: value for name, value in {**metrics(float(value_U.mean())), **(change or {})}.items() if name != lack}
    run = RunSummary("r", "r", "FINISHED", None, 1.0, {}, logged, {PROTOCOL: protocol, DATA: data})  # type: ignore[arg-type]
    rows = [
        pl.DataFrame({"user": np.arange(len(each_U)), "model": name, METRIC: each_U})
        for name, each_U in {"model": value_U, "popularity": floor_U[: len(value_U)]}.items()
    ]
    version = Version("m", number, "r", "runs:/r/bundle", dict(tags or {}))
    users = dict.fromkeys(STANDARD, 2000) if slice_users is None else dict(slice_users)
    return Measured(version, run, pl.concat(rows), users, lost)


def judge(facts: Facts, rules: Mapping[str, Any] | None = None, tasks: tuple[str, ...] = ("click",)) -> dict[str, Gate]:
    found = judge_facts(PromotionConfig.model_validate(rules or {}), facts, METRIC, first_k=10, tasks=tasks)
    assert len({gate.name for gate in found}) == len(found)
    return {gate.name: gate for gate in found}


def beside(value_U: np.ndarray | None = None, rules: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Gate]:
    return judge(Facts(measured(2, value_U, **options), measured(1)), rules)


def test_an_equal_candidate_passes_every_gate_and_what_is_off_says_so() -> None:
    found = beside()
    assert all(gate.passed for gate in found.values())
    off = {"calibration", "coverage", "popularity_lift", "latency", "size"}
    assert {name for name, gate in found.items() if gate.off} == off
    assert found["latency"].note == "off: promotion.latency_p99_ms is null"
    assert str(found["latency"]).startswith("off: value -, limit -")


@pytest.mark.parametrize(
    ("rule", "metric", "gate", "limit", "good", "bad"),
    [
        ("parity", "export/parity_max_error", "parity", 1e-4, 1e-4, 1.01e-4),
        ("latency_p99_ms", "export/latency_p99_ms", "latency", 20.0, 20.0, 20.1),
        ("size_mib", "export/bundle_mib", "size", 100.0, 100.0, 100.1),
        ("coverage", "test/coverage@10", "coverage", 0.3, 0.3, 0.29),
        ("popularity_lift", "test/popularity_lift@10", "popularity_lift", 1.5, 1.5, 1.6),
        ("calibration", "test/ECE/click", "calibration/click", 0.05, 0.05, 0.051),
    ],
)  # fmt: skip
def test_a_number_passes_at_its_limit_and_fails_beyond_it(
    rule: str, metric: str, gate: str, limit: float, good: float, bad: float
) -> None:
    for value, passed in ((good, True), (bad, False), (float("nan"), False)):
        found = beside(rules={rule: limit}, change={metric: value})
        assert found[gate].passed is passed
        assert found[gate].limit == limit
        assert [name for name, each in found.items() if not each.passed] == ([] if passed else [gate])
    missing = beside(rules={rule: limit}, lack=metric)[gate]
    assert (missing.passed, missing.value) == (False, None)
    assert missing.note.startswith(f"{metric} was not logged:")
    assert beside(rules={rule: None}, change={metric: bad})[gate.split("/")[0]].off


def test_calibration_can_differ_by_task() -> None:
    change = {"test/ECE/click": 0.02, "test/ECE/like": 0.04}
    facts = Facts(measured(change=change), None)
    found = judge(facts, {"calibration": {"click": 0.03, "like": 0.03}}, ("click", "like", "buy"))
    assert (found["calibration/click"].passed, found["calibration/like"].passed) == (True, False)
    assert "calibration/buy" not in found
    assert judge(facts, {"calibration": 0.05}, ())["calibration"].passed  # a model without a ranker


@pytest.mark.parametrize(("gain", "passed"), [(0.05, True), (0.001, False), (0.0, False), (-0.05, False)])
def test_the_floor_has_to_be_beaten_beyond_chance(gain: float, passed: bool) -> None:
    noise_U = values(0.0, seed=5, spread=0.1)
    found = judge(Facts(measured(value_U=FLOOR_U + gain + noise_U), None))["floor"]
    assert found.passed is passed
    assert found.limit == 0
    assert found.value == pytest.approx(gain - 1.96 * noise_U.std() / 20, abs=0.001)  # 20: the root of 400 users
    assert "interval over users" in found.note


def test_by_the_mean_the_floor_is_beaten_by_any_amount() -> None:
    noisy_U = FLOOR_U + 0.001 + values(0.0, seed=5, spread=0.1)
    found = judge(Facts(measured(value_U=noisy_U), None), {"floor": {"mode": "mean"}})["floor"]
    assert (found.passed, found.limit) == (True, pytest.approx(0.1))
    assert found.value == pytest.approx(0.101)
    even = judge(Facts(measured(change={f"test/{METRIC}": 0.1}), None), {"floor": {"mode": "mean"}})["floor"]
    assert not even.passed


def test_every_floor_has_to_be_beaten() -> None:
    facts = Facts(measured(change={f"floor/item-knn/{METRIC}": 0.01}), None)
    assert not judge(facts)["floor"].passed  # its values by user are not there
    assert "no NDCG@10 by user for 'item-knn'" in judge(facts)["floor"].note


@pytest.mark.parametrize("shift", [0.02, 0.0, -0.006, -0.012, -0.03])
def test_the_champion_may_be_missed_by_less_than_the_margin(shift: float) -> None:
    """The margin is 5 % of 0.2, that is 0.01. The shift is every user's, so the interval is the shift itself."""
    found = beside(CHAMPION_U + shift, {"slices": {}})["champion"]
    assert found.value == pytest.approx(shift, abs=1e-12)
    assert found.limit == pytest.approx(-0.01)
    assert found.passed is (shift > -0.01)
    better = beside(CHAMPION_U + shift, {"slices": {}, "champion": {"mode": "better"}})["champion"]
    assert (better.passed, better.limit) == (shift > 0, 0)


def test_it_is_the_lower_end_of_the_interval_that_counts() -> None:
    noise_U = values(0.0, seed=5, spread=0.3)
    reach = 1.96 * noise_U.std() / 20
    assert 0.01 < reach < 0.02
    found = beside(CHAMPION_U + noise_U, {"slices": {}})["champion"]
    assert not found.passed  # equal on the mean, but it could be worse by more than the margin
    assert found.value == pytest.approx(-reach, rel=0.1)
    assert beside(CHAMPION_U + noise_U, {"slices": {}, "champion": {"margin": 0.1}})["champion"].passed
    assert beside(CHAMPION_U + noise_U, {"slices": {}, "champion": {"confidence": 0.6}})["champion"].passed


def test_users_are_paired_by_their_id_and_not_by_their_place() -> None:
    turned = measured(2)
    assert turned.per_user is not None
    other = Measured(turned.version, turned.run, turned.per_user.reverse(), turned.slice_users)
    assert judge(Facts(other, measured(1)))["champion"].value == 0


@pytest.mark.parametrize("metric", ["value", "limit"])
def test_the_same_facts_give_the_same_numbers(metric: str) -> None:
    noisy_U = CHAMPION_U + values(0.0, seed=5)
    assert getattr(beside(noisy_U)["champion"], metric) == getattr(beside(noisy_U)["champion"], metric)


def test_values_by_user_that_are_missing_or_unfit_fail_with_the_mend() -> None:
    whole, champion = measured(2), measured(1)
    lacking = Measured(whole.version, whole.run, None, whole.slice_users)
    for facts, number in (
        (Facts(lacking, champion), 2),
        (Facts(whole, Measured(champion.version, champion.run, None, None)), 1),
    ):
        found = judge(facts)["champion"]
        assert not found.passed
        assert found.note.startswith(f"version {number} has no NDCG@10 by user for 'model': evaluate and export its run again")
    assert "set promotion.floor.mode to mean" in judge(Facts(lacking, None))["floor"].note
    fewer = beside(CHAMPION_U[:399])["champion"]
    assert (fewer.passed, "(399 and 400, 399 shared)" in fewer.note) == (False, True)
    nan_U = CHAMPION_U.copy()
    nan_U[3] = np.nan
    assert "is not a number" in beside(nan_U)["champion"].note
    few = judge(Facts(measured(value_U=np.full(29, 0.2)), None))["floor"]
    assert (few.passed, few.note.startswith("29 users were judged")) == (False, True)


@pytest.mark.parametrize(
    ("options", "key", "default"),
    [({"protocol": "p2"}, "on_other_protocol", False), ({"data": "d2"}, "on_other_data", True)],
)
def test_a_champion_that_was_judged_otherwise(options: dict[str, str], key: str, default: bool) -> None:
    worse_U = CHAMPION_U - 0.05
    found = beside(worse_U, **options)
    assert found["champion"].passed is default
    assert "not comparable" in found["champion"].note
    for choice in ("allow", "refuse"):
        chosen = beside(worse_U, {"champion": {key: choice}}, **options)["champion"]
        assert chosen.passed is (choice == "allow")
        assert (f"promotion.champion.{key}=allow" in chosen.note) is (choice == "refuse")
    assert "not comparable" in found["slice/tail"].note
    assert found["slice/tail"].passed


def test_a_champion_whose_run_is_gone_blocks_until_the_gate_is_off() -> None:
    gone = Measured(measured(1).version, None, None, None)
    found = judge(Facts(measured(2), gone))
    assert [name for name, gate in found.items() if not gate.passed] == ["champion"]
    assert "mlflow runs restore --run-id r" in found["champion"].note
    assert all(gate.passed for gate in judge(Facts(measured(2), gone), {"champion": None}).values())


@pytest.mark.parametrize(("value", "passed"), [(0.16, True), (0.159, False), (0.5, True)])
def test_a_slice_may_drop_by_a_fifth(value: float, passed: bool) -> None:
    found = beside(change={f"slice/tail/{METRIC}": value})
    assert found["slice/tail"].passed is passed
    assert found["slice/tail"].limit == pytest.approx(0.16)
    assert found["slice/head"].passed
    assert beside(rules={"slices": {"tail": {"max_drop": None}}}, change={f"slice/tail/{METRIC}": 0.0})["slice/tail"].off


def test_a_slice_has_a_least_value_and_a_metric_of_its_own() -> None:
    rules = {"slices": {"tail": {"min": 0.05, "max_drop": None, "metric": "HR@20"}}}
    for value, passed in ((0.05, True), (0.049, False)):
        found = judge(Facts(measured(change={"slice/tail/HR@20": value}), None), rules)
        assert found["slice/tail"].passed is passed
        assert "slice/head" not in found
    missing = judge(Facts(measured(), None), rules)["slice/tail"]
    assert (missing.passed, missing.note) == (False, "slice/tail/HR@20 was not logged: evaluate and export the run again")


def test_the_stricter_of_two_limits_of_a_slice_is_shown() -> None:
    rules = {"slices": {"tail": {"min": 0.15, "max_drop": 0.5}}}
    assert beside(rules=rules)["slice/tail"].limit == 0.15
    assert beside(rules={"slices": {"tail": {"min": 0.05, "max_drop": 0.5}}})["slice/tail"].limit == pytest.approx(0.1)


def test_slices_of_few_users_or_none() -> None:
    name = f"slice/cold/{METRIC}"
    few = beside(change={name: 0.01}, slice_users={"cold": 499, "warm": 501})["slice/cold"]
    assert (few.passed, "499 users" in few.note) == (True, True)
    assert not beside(change={name: 0.01}, slice_users={"cold": 500})["slice/cold"].passed
    empty = beside(lack=name, slice_users={"cold": 0, "warm": 2000})["slice/cold"]
    assert (empty.passed, empty.note) == (True, "no user of the test split is in the slice cold")
    never = beside(lack=name, slice_users={})["slice/cold"]
    assert not never.passed


def test_a_champion_without_the_slice_fails_with_the_mend() -> None:
    found = judge(Facts(measured(2), measured(1, lack=f"slice/tail/{METRIC}")))["slice/tail"]
    assert not found.passed
    assert found.note.startswith(f"the champion, version 1, has no slice/tail/{METRIC}: evaluate and export its run again")


def test_lost_files_and_an_earlier_rollback() -> None:
    assert "lost ranking.onnx of runs:/r/bundle" in beside(lost=("ranking.onnx",))["bundle"].note
    assert not beside(lost=("ranking.onnx",))["bundle"].passed
    taken_back = measured(2, tags={"promotion/rolled_back": "2026-01-01"})
    assert not judge(Facts(taken_back, None))["standing"].passed
    assert judge(Facts(taken_back, None, named=True))["standing"].passed
