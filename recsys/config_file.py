"""The only reader of YAML configs: a file and its overrides as one tree, and a sentence for what is wrong with a tree."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from recsys.errors import InputError


def read(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The tree of a file, what it extends and the overrides. Raises InputError with the file or the override."""
    tree = _tree(path, ())
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r} is not of the form section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"override {override!r}: the value is not valid YAML: {' '.join(str(error).split())}") from error
        tree = _merge(tree, _nest(key.split("."), value))
    return tree


def _tree(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise InputError(f"{path}: `extends` goes round in a circle")
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): name a config file, or one of the shipped configs"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} must hold a mapping of sections, such as `name:` and `data:`")
    base = tree.pop("extends", None)
    return tree if base is None else _merge(_tree(path.parent / str(base), (*above, path.resolve())), tree)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`change` over `base`, key by key; a change of `kind` replaces the whole section, since its settings are other ones."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        merged[key] = _merge(old, value) if same_kind and isinstance(old, dict) else value
    return merged


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing wrong with a tree that `model` refuses: its place, its value and the choices."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the config"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {place!r}: choose from {_choices(model, first['loc'])}{more}"
        case "union_tag_not_found":
            return f"{place!r} needs a `kind`: choose from {_choices(model, (*first['loc'], ''))}{more}"
        case "missing":
            return f"{place!r} is missing{more}"
        case "value_error":
            return f"{place}: {first['ctx']['error']}{more}"
        case _:
            return f"{place} = {first.get('input')!r}: {first['msg']}{more}"


def _choices(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed where a misspelt one stands."""
    schema: dict[str, Any] = model.model_json_schema()
    definitions, node = schema["$defs"], schema
    for part in place[:-1]:
        below = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
        node = _resolve(below, definitions, str(part)) or node
    return sorted(node.get("properties", {}))


def _resolve(node: dict[str, Any], definitions: dict[str, Any], tag: str) -> dict[str, Any]:
    for candidate in (node, *node.get("anyOf", []), *node.get("allOf", [])):
        if "$ref" in candidate:
            return definitions[candidate["$ref"].rsplit("/", 1)[1]]
        if "discriminator" in candidate:
            return {"properties": {kind: {"$ref": ref} for kind, ref in candidate["discriminator"]["mapping"].items()}}
    return node
