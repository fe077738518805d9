"""The page on metrics says what the code does: each metric has a row with its direction, each slice its rule."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from recsys.config import EvaluationConfig
from recsys.evaluate import Predictions, ranking_metrics
from recsys.evaluate.beyond import Surroundings
from recsys.evaluate.judged import Judged
from recsys.jagged import Jagged
from recsys.metrics.categories import categories_of
from recsys.metrics.direction import direction
from recsys.metrics.ranking import rank_metrics
from recsys.metrics.slices import RULES

PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
DIRECTIONS = {"higher": 1, "lower": -1, "neither": 0}


def rows(section: str) -> list[list[str]]:
    """The cells of the section's first table, without its head."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def measured() -> dict[str, set[str]]:
    """Section -> the metrics that it has to explain."""
    one = Jagged.from_lists([[2]])
    item_UK = np.array([[2, 3]])
    judged = Judged(np.array([2]), one, one, Jagged.from_lists([[0, 1]]))
    around = Surroundings(np.array([0, 0, 1, 1]), item_UK, categories_of(Jagged.from_lists([[1]] * 4)))
    beyond = around.per_user(item_UK, judged, 2) | around.of_catalogue(item_UK, 2) | around.of_group(item_UK, judged, 2)
    predictions = Predictions(np.array([2]), np.array([[0.5, 0.5]]), np.array([[1.0, 1.0]]))
    tasks = ranking_metrics(predictions, ("a", "b"), ece_bins=2, seed=0, intervals=False, numbers=["b"])
    return {
        "Accuracy of lists": {name.split("@")[0] for name in rank_metrics(item_UK, one, [1])},
        "Beyond accuracy": {name.split("@")[0] for name in beyond} | {"coverage"},
        "Tasks of the ranker": {name.split("/")[0] for name in tasks},
    }


@pytest.mark.parametrize(("section", "names"), measured().items())
def test_every_metric_is_explained_with_its_direction(section: str, names: set[str]) -> None:
    better = {row[0]: row[1] if section.startswith("Accuracy") else row[2] for row in rows(section)}
    assert set(better) == names
    assert {name: DIRECTIONS[word] for name, word in better.items()} == {name: direction(f"test/{name}@10") for name in names}


def test_slices_have_the_rules_of_the_code() -> None:
    assert dict(rows("Slices")) == RULES


def test_the_example_is_valid() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert set(yaml.safe_load(block)["evaluation"]) == {"category", "user_slices", "item_slices"}
    EvaluationConfig.model_validate(yaml.safe_load(block)["evaluation"])
