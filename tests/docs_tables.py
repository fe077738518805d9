"""Tables of the manual that list the keys of a section of the config, beside the code."""

import re

import yaml
from pydantic import TypeAdapter

from recsys.spec import Spec

# The least `data` section that makes a config of an example whole.
DATA = {"events": {"path": "log.csv", "user": "u", "item": "i", "time": "t", "columns": {"t": "int"}, "labels": {"c": "c = 1"}}}


def require_keys(page: str, section: str, spec: type[Spec]) -> None:
    """Below the heading of the section stand all keys of it, in their order, with their defaults."""
    text = page.split(f"\n### {section}\n")[1].split("\n#")[0]
    shown = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, re.MULTILINE)
    assert [key for key, _ in shown] == list(spec.model_fields)
    for key, default in shown:
        field = spec.model_fields[key]
        read = TypeAdapter(field.annotation).validate_python(yaml.safe_load(default))
        assert read == field.get_default(call_default_factory=True), key
