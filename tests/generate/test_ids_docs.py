"""docs/semantic-ids.md names every key with its default."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter

from recsys.generate.ids_config import IdsConfig, Limits, Quantizer, Vectors
from recsys.generator_config import GeneratorConfig

PAGE = (Path(__file__).parents[2] / "docs" / "semantic-ids.md").read_text()


def rows(section: str) -> list[list[str]]:
    text = PAGE.split(f"\n### {section}\n")[1].split("\n#")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]


def shown(cells: list[tuple[str, str]]) -> dict[str, Any]:
    """Key -> default; a cell may name several keys and as many defaults."""
    found = {}
    for keys, defaults in cells:
        values = re.findall(r"`([^`]*)`", defaults)
        names = re.findall(r"`([^`]*)`", keys)
        found |= dict(zip(names, [yaml.safe_load(value) for value in values] or [None] * len(names), strict=True))
    return found


@pytest.mark.parametrize(("section", "kind"), [("ids", IdsConfig), ("limits", Limits)])
def test_every_key_has_its_default(section: str, kind: Any) -> None:
    found = shown([(row[0], row[1]) for row in rows(section)])
    assert found.keys() == kind.model_fields.keys()
    for name, field in kind.model_fields.items():
        assert TypeAdapter(field.annotation if name == "limits" else field.rebuild_annotation()).validate_python(
            found[name]
        ) == (field.default), name


@pytest.mark.parametrize(("section", "union"), [("vectors", Vectors), ("quantizer", Quantizer)])
def test_every_kind_has_its_keys_and_defaults(section: str, union: Any) -> None:
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for kind, key, default, _ in rows(section):
        by_kind.setdefault(kind.strip("`") or list(by_kind)[-1], []).append((key, default))
    members = {member.model_fields["kind"].default: member for member in get_args(get_args(union)[0])}
    assert by_kind.keys() == members.keys()
    for kind, member in members.items():
        found = shown(by_kind[kind])
        assert found.keys() == member.model_fields.keys() - {"kind"}, kind
        given = {name: value for name, value in found.items() if not member.model_fields[name].is_required()}
        required = {name: ["x"] for name in found.keys() - given.keys()}
        assert member(**given, **required) == member(**required), kind


def test_the_example_is_valid() -> None:
    block = PAGE.split("```yaml\n")[1].split("```")[0]
    ids = GeneratorConfig.model_validate(yaml.safe_load(block)["generator"]).ids
    assert ids.vectors.kind == "joint"


def test_the_messages_are_those_of_the_code() -> None:
    folder = Path(__file__).parents[2]
    files = [*(folder / "recsys" / "generate").glob("*.py"), folder / "pipelines" / "semantic_ids.py"]
    code = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text() for path in files))
    table = PAGE.split("\n## What can go wrong\n")[1].split("\n##")[0]
    fragments = [
        "items share all codes (such as", "items have no {what} (such as", "the codes have collapsed",
        "that of the vectors themselves is",
        "was made with other settings (generator.ids) than this config's", "has ids of other items than those of",
        "was made from another retriever than", "codes of most items and",
    ]  # fmt: skip
    for fragment in fragments:
        assert fragment in code, fragment
        assert fragment.replace("{what}", "content") in table.replace("... of ... items", "items"), fragment
    assert table.count("\n| `") == len(fragments)
