"""The page on monitoring says what the code does: keys, defaults, alarms, sentences."""

import re
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from recsys.config import RunConfig
from recsys.daily_config import DailyConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
CODE = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in (ROOT / "pipelines" / "monitor").glob("*.py")))
OWN = re.compile(r"marker|quiet_seconds|utc_offset_hours|(min|max|bot|alarm)_\w+")  # the others are about how days are run
DATA = {"events": {"path": "log", "user": "u", "item": "i", "time": "t", "columns": {"t": "int"}, "labels": {"c": "c = 1"}}}


def first_cells(title: str) -> list[str]:
    text = PAGE.split(f"\n{title}\n")[1].split("\n#")[0]
    return re.findall(r"^\| (.+?) \| ", text, re.MULTILINE)


def test_every_key_is_explained_with_its_default() -> None:
    text = PAGE.split("\n### daily\n")[1].split("\n#")[0]
    shown = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, re.MULTILINE)
    assert [key for key, _ in shown] == [key for key in DailyConfig.model_fields if OWN.fullmatch(key)]
    for key, default in shown:
        field = DailyConfig.model_fields[key]
        assert TypeAdapter(field.annotation).validate_python(yaml.safe_load(default)) == field.default, key


def test_the_example_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = RunConfig.model_validate({"name": "shown", "data": DATA, **yaml.safe_load(block)})
    assert config.daily.marker == "_SUCCESS"


def test_the_alarms_are_those_of_the_code() -> None:
    shown = {name for cell in first_cells("## Alarms")[1:] for name in re.findall(r"`(.+?)`", cell)}
    made = set(re.findall(r'Alarm\(\s*f?"(.+?)"', CODE)) | {"rows", "users"}
    words = {"{part}": "PART", "{moved.column}": "COLUMN", "{name}": "NAME"}
    named = {re.sub(r"\{[\w.]+\}", lambda found: words.get(found[0], found[0]), each) for each in made}
    assert shown == named - {"day {state.status}"} | {"day stopped", "day failed"}


def test_the_sentences_are_those_of_the_code() -> None:
    said = re.findall(r"^\| `(.+?)` \| ", PAGE.split("## What can go wrong")[1], re.MULTILINE)
    assert len(said) >= 10
    assert [each for each in said if each not in CODE] == []


def test_links_lead_to_pages_and_sections() -> None:
    for page, section in re.findall(r"\]\(([\w-]+\.md)#?([\w-]*)\)", PAGE):
        text = (ROOT / "docs" / page).read_text()
        titles = [
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        ]
        assert not section or section in titles, section
