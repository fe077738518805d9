"""What an item is worth: weights or a formula, read once, and refused with the part that is wrong."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.workspace import config_path
from recsys.config import load
from recsys.errors import InputError
from recsys.value_formula import LOWEST, ValueFormula, tasks_of

TASKS = ("click", "like", "purchase")


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        ("click * (1 + 4 * purchase)", 0.5 * (1 + 4 * 0.25)),
        ("-click + like / 2", -0.5 + 0.1 / 2),
        ("min(click, like) - max(purchase, 0.3)", 0.1 - 0.3),
        ("log1p(purchase) + sqrt(purchase)", math.log(1.25) + 0.5),
        ("2 ** -like * 3.5e1", 2**-0.1 * 35),
        ("click ** 2 ** 2", 0.5**4),
    ],
)
def test_a_formula_is_what_it_says(formula: str, wanted: float) -> None:
    probability_BKT = np.tile(np.array([0.5, 0.1, 0.25], np.float32), (2, 3, 1))
    value_BK = ValueFormula(formula, TASKS)(probability_BKT)
    assert value_BK.shape == (2, 3)
    assert value_BK == pytest.approx(wanted, rel=1e-6)


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_weights_and_the_same_written_out_agree(probability: list[float], weight: list[float]) -> None:
    text = " + ".join(f"{task} * ({number!r})" for task, number in zip(TASKS, weight, strict=True))
    probability_1T = np.array([probability], np.float32)
    weights = ValueFormula(dict(zip(TASKS, weight, strict=True)), TASKS)
    assert ValueFormula(text, TASKS)(probability_1T) == pytest.approx(weights(probability_1T), abs=1e-9)
    assert ValueFormula(text, TASKS).slope(probability_1T) == pytest.approx(weights.slope(probability_1T), abs=1e-6)


def test_slope_is_the_derivative_at_the_mean() -> None:
    probability_KT = np.array([[0.2, 0.0, 0.4], [0.4, 1.0, 0.6]], np.float32)  # mean: .3, .5, .5
    slope_T = ValueFormula("click * (1 + 4 * purchase)", TASKS).slope(probability_KT)
    assert slope_T == pytest.approx([1 + 4 * 0.5, 0, 4 * 0.3], abs=1e-6)
    unseen_KT = np.append(probability_KT, np.full((3, 3), np.nan, np.float32), axis=0)
    assert ValueFormula("click * (1 + 4 * purchase)", TASKS).slope(unseen_KT) == pytest.approx(slope_T, abs=1e-6)
    assert ValueFormula("like ** 2", TASKS).slope(unseen_KT[2:]) == pytest.approx([0, 1, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("formula", "part"),
    [
        ("click.real", "'click.real'"),
        ("__import__('os')", "__import__"),
        ("click if like else 1", "'click if like else 1'"),
        ("click and like", "'click and like'"),
        ("click + True", "'True'"),
        ("click + 'a'", "\"'a'\""),
        ("click @ like", "'click @ like'"),
        ("click // like", "'click // like'"),
        ("+click", r"'\+click'"),
        ("exp(click)", r"'exp\(click\)'"),
        ("min(click)", r"'min\(click\)'"),
        ("sqrt(click, like)", r"'sqrt\(click, like\)'"),
        ("min(*click)", r"'min\(\*click\)'"),
        ("max(click, like, out=click)", "out=click"),
        ("[click][0]", r"'\[click\]\[0\]'"),
        ("(lambda: click)()", "lambda"),
        ("click + 1e999", "use task names, numbers"),
        ("click + 9" + "0" * 300, "write it with at most 300"),
        ("click; like", "is not a formula"),
        ("click +", "is not a formula"),
        ("", "is not a formula"),
        ("(" * 250 + "click" + ")" * 40, "is not a formula"),
        ("click\x00", "is not a formula"),
        ("1 + 2", "reads no task"),
        ("click * clik", r"unknown task 'clik': choose from \['click', 'like', 'purchase'\]"),
        ("like / click", "no finite value where click is 0, like is 0"),
        ("click ** -1", "no finite value where click is 0"),
        ("sqrt(click - 1)", "no finite value where click is 0"),
        ("click * 9 ** 9 ** 9", "no finite value where"),
    ],
)
def test_anything_else_is_refused_with_its_part(formula: str, part: str) -> None:
    with pytest.raises(InputError, match=part) as refused:
        ValueFormula(formula, TASKS)
    assert "\n" not in str(refused.value)


def test_an_unknown_task_of_the_weights_is_named() -> None:
    with pytest.raises(InputError, match="unknown task 'buy'"):
        ValueFormula({"click": 1.0, "buy": 2.0}, TASKS)


def test_an_item_without_a_finite_value_stands_last() -> None:
    """A number such as the time watched may be what no probability is."""
    value_K = ValueFormula("click + log1p(watched)", ("click", "watched"))(np.array([[0.9, -2.0], [0.0, 0.0]], np.float32))
    assert value_K.tolist() == [LOWEST, 0.0]


@pytest.mark.parametrize(
    ("value", "part"),
    [("click * clik", "serving.value names the unknown task 'clik'"), ("open(click)", r"serving.value.*'open\(click\)'")],
)
def test_a_config_is_refused_when_it_is_loaded(value: str, part: str) -> None:
    assert load(config_path("demo"), "serving.value=click * (1 + 4 * purchase)").value == "click * (1 + 4 * purchase)"
    with pytest.raises(InputError, match=part):
        load(config_path("demo"), f"serving.value={value}")


def test_the_tasks_that_are_read() -> None:
    assert tasks_of("min(like, click) + 2") == ["click", "like"]
    assert tasks_of({"like": 1.0}) == ["like"]
