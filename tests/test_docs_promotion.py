"""The page on promotion says what the code does: keys, defaults, examples, sentences."""

import re
from pathlib import Path

import pytest
import yaml
from docs_tables import DATA, require_keys

from recsys.config import RunConfig
from recsys.promotion_config import ChampionGate, FloorGate, PromotionConfig, SliceGate
from recsys.spec import Spec

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promotion.md").read_text()
SECTIONS: dict[str, type[Spec]] = {
    "promotion": PromotionConfig,
    "champion": ChampionGate,
    "floor": FloorGate,
    "slices": SliceGate,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_explained_with_its_default(section: str) -> None:
    require_keys(PAGE, section, SECTIONS[section])


def test_the_example_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = RunConfig.model_validate({"name": "shown", "data": DATA, **yaml.safe_load(block)})
    assert config.promotion.champion is not None
    assert config.promotion.champion.mode == "better"


def test_the_sentences_are_those_of_the_code() -> None:
    files = [*(ROOT / "pipelines").rglob("*.py"), *(ROOT / "recsys" / "track").glob("*.py")]
    code = "\n".join(path.read_text() for path in files)
    said = re.findall(r"^\| `(.+?)` \| ", PAGE.split("## What can go wrong")[1], re.MULTILINE)
    assert len(said) >= 5
    assert [each for each in said if each not in code] == []


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"metric": "Gini@10"}, "promotion.metric 'Gini@10' is not better where it is higher"),
        ({"metric": "coverage@10"}, "promotion.metric 'coverage@10' has no value for each user"),
        (
            {"slices": {"cold": {"metric": "category_calibration@10"}}},
            "slices.cold.metric 'category_calibration@10' is not",
        ),
        ({"metric": "NDCG@7"}, r"promotion.metric 'NDCG@7' is not a metric at one of evaluation.ks \[10, 20, 50\]"),
        ({"slices": {"tial": {}}}, r"promotion.slices names the unknown slice 'tial': choose from \['head'"),
        ({"slices": {"tail": {"metric": "HR"}}}, "promotion.slices.tail.metric 'HR' is not a metric"),
        ({"calibration": {"like": 0.1}}, r"promotion.calibration names the unknown task 'like': choose from \['c'\]"),
        ({"calibration": 0}, "calibration is 0.0: give a limit above 0, or null"),
    ],
)
def test_a_gate_that_names_what_is_not_there_is_refused(section: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RunConfig.model_validate({"name": "shown", "data": DATA, "promotion": section})
