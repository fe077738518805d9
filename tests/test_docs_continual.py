"""The page on continual training says what the code does: keys, defaults, the example, sentences."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from recsys.config import RunConfig
from recsys.continual.distil import Distil
from recsys.continual_config import ContinualConfig
from recsys.spec import Spec

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "continual.md").read_text()
SECTIONS = {"continual": ContinualConfig, "distil": Distil}
DATA = {"events": {"path": "log.csv", "user": "u", "item": "i", "time": "t", "columns": {"t": "int"}, "labels": {"c": "c = 1"}}}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_explained_with_its_default(section: str) -> None:
    spec: type[Spec] = SECTIONS[section]
    text = PAGE.split(f"\n### {section}\n")[1].split("\n#")[0]
    shown = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, re.MULTILINE)
    assert [key for key, _ in shown] == list(spec.model_fields)
    for key, default in shown:
        field = spec.model_fields[key]
        read = TypeAdapter(field.annotation).validate_python(yaml.safe_load(default))
        assert read == field.get_default(call_default_factory=True), key


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
