"""The page on continual training says what the code does: keys, defaults, the example, sentences."""

import re
from pathlib import Path

import pytest
import yaml
from docs_tables import DATA, require_keys

from recsys.config import RunConfig
from recsys.continual.distil import Distil
from recsys.continual_config import ContinualConfig
from recsys.spec import Spec

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "continual.md").read_text()
SECTIONS: dict[str, type[Spec]] = {"continual": ContinualConfig, "distil": Distil}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_explained_with_its_default(section: str) -> None:
    require_keys(PAGE, section, SECTIONS[section])


def test_the_example_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = RunConfig.model_validate({"name": "shown", "data": DATA, **yaml.safe_load(block)})
    assert config.continual.distil == Distil(weight=0.3)


def test_the_sentences_are_those_of_the_code() -> None:
    files = [path for folder in ("recsys", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in files))
    errors = re.findall(r"^\| `(.+?)` \| ", PAGE.split("## What can go wrong")[1], re.MULTILINE)
    assert len(errors) == 3
    assert [error for error in errors if error not in code] == []
