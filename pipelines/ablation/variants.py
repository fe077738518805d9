"""What an ablation compares: configs that differ from a base in one place, found in the config's own types or named by hand."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.parents import settings
from recsys.config import GeneratorConfig, PolicyConfig, RankerConfig, RetrieverConfig, RunConfig
from recsys.errors import InputError

BASE, WITHOUT, DEFAULTS = "base", "none", "defaults"
STAGES: dict[str, type[BaseModel]] = {
    "retriever": RetrieverConfig, "generator": GeneratorConfig, "policy": PolicyConfig, "ranker": RankerConfig
}  # fmt: skip
STAGE_NAMES = "retriever, generator, policy or ranker"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._= -]*[A-Za-z0-9._=-])?")
FIXED = ("name", "seed", "data", "evaluation")  # what has to be the same for two results to be compared


@dataclass(frozen=True)
class Plan:
    """Configs by name, the base first, and why a kind is not among them."""

    stage: str
    title: str
    variants: dict[str, RunConfig]
    left_out: dict[str, str] = field(default_factory=dict)


def over(config: RunConfig, key: str, stage: str | None = None) -> Plan:
    """The base and every other choice for `key`, such as `denoise`, `sequence_views.loss` or `ranker.balance`.

    For a key that takes one of several kinds: each kind at its default settings, and `none` where the key may be empty. For a
    section without kinds: with it and without. For a key of a few fixed values: each of them. A kind that is no valid config
    at its defaults is left out, with the reason. Where several stages have the key, the first of `STAGES` is taken.
    """
    stage, path = _locate(config, key, stage)
    choices, here = _choices(config, stage, path)
    tree = config.model_dump(mode="json", exclude_unset=True)
    if len(path) > 1:  # the kind of the section around the key may be a default
        tree.setdefault(stage, {})[path[0]] = getattr(getattr(config, stage), path[0]).model_dump(mode="json")
    variants, left_out = {BASE: config}, {}
    for name, value in choices.items():
        try:
            variant = RunConfig.model_validate(_with(tree, (stage, *path), value))
        except ValidationError as error:
            left_out[name] = _sentence(error)
            continue
        if variant != config:
            variants[f"{name}-defaults" if name == here else name] = variant
    if len(variants) == 1:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise InputError(
            f"--over {key} leaves nothing to compare with the base{': ' + reasons if reasons else ''}: use --variant"
        )
    return Plan(stage, ".".join((stage, *path)), variants, left_out)


def named(config: RunConfig, texts: list[str], load: Callable[..., RunConfig], stage: str | None = None) -> Plan:
    """The base and variants such as `NAME: {retriever.denoise: {kind: truncated}, retriever.fit.epochs: 5}`, in YAML.

    `load(*overrides)` reads the base config with overrides of the form key=value.
    """
    variants: dict[str, RunConfig] = {BASE: config}
    for text in texts:
        for name, overrides in _named(text).items():
            if name in variants:
                raise InputError(
                    f"--variant names {name!r} twice{' (it is the config as it is)' if name == BASE else ''}: rename it"
                )
            variants[name] = _loaded(name, overrides, load)
            for fixed in FIXED:
                if getattr(variants[name], fixed) != getattr(config, fixed):
                    raise InputError(f"variant {name} changes `{fixed}`, which must be equal in all variants: use --set for it")
    stage = stage or _changed(config, variants)
    for name, variant in variants.items():
        if getattr(variant, stage) is None:
            who = "this config" if name == BASE else f"variant {name}"
            raise InputError(f"{who} has no `{stage}` section to train: set one, or choose another --stage")
        if name != BASE and settings(variant, stage) == settings(config, stage):
            raise InputError(f"variant {name} changes nothing of the {stage}: change a key of it, or choose another --stage")
    return Plan(stage, "variants", variants)


def plan(
    config: RunConfig, key: str | None, texts: list[str], load: Callable[..., RunConfig], stage: str | None = None
) -> Plan:
    """What --over, --variant or both ask for."""
    if stage not in (None, *STAGES):
        raise InputError(f"--stage {stage!r} is unknown: choose {STAGE_NAMES}")
    if key is None and not texts:
        raise InputError(
            "nothing to compare with the base: say --over FAMILY, such as denoise, or --variant 'NAME: {key: value}'"
        )
    if key is None:
        return named(config, texts, load, stage)
    found = over(config, key, stage)
    if not texts:
        return found
    more = named(config, texts, load, found.stage).variants
    if twice := [name for name in more if name != BASE and name in found.variants]:
        raise InputError(f"--variant names {twice[0]!r}, which --over {key} has: rename it")
    return Plan(found.stage, found.title, {**found.variants, **more}, found.left_out)


def _named(text: str) -> dict[str, dict[str, Any]]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--variant {text!r} is not valid YAML: {' '.join(str(error).split())}") from error
    form = "write 'NAME: {section.key: value}'"
    if not isinstance(found, dict) or not all(isinstance(value, dict) and value for value in found.values()):
        raise InputError(f"--variant {text!r} does not map a name to overrides: {form}")
    for name, overrides in found.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(f"--variant {text!r}: {name!r} cannot be the name of a folder: {form}")
        if bad := [key for key in overrides if not isinstance(key, str)]:
            raise InputError(f"--variant {text!r}: {bad[0]!r} is no config key: {form}")
    return found


def _loaded(name: str, overrides: Mapping[str, Any], load: Callable[..., RunConfig]) -> RunConfig:
    try:
        return load(
            *(f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}" for key, value in overrides.items())
        )
    except InputError as error:
        raise InputError(f"variant {name}: {error}") from error


def _changed(config: RunConfig, variants: Mapping[str, RunConfig]) -> str:
    """The stage that the variants change."""
    found = {stage for stage in STAGES for each in variants.values() if getattr(each, stage) != getattr(config, stage)}
    if len(found) != 1:
        what = " and ".join(f"the {stage}" for stage in STAGES if stage in found) or "no stage"
        raise InputError(f"the variants change {what}: say which to train by --stage")
    return found.pop()


def _locate(config: RunConfig, key: str, stage: str | None) -> tuple[str, tuple[str, ...]]:
    """The stage that has the key, and the key's path in it."""
    first, *rest = key.split(".")
    if first in STAGES and rest:
        if stage not in (None, first):
            raise InputError(f"--over {key} belongs to the {first}, and --stage says {stage}: leave one of them out")
        stage, (first, *rest) = first, rest
    known = {each: list(families(each)) for each in ([stage] if stage else STAGES)}
    found = [each for each, names in known.items() if first in names]
    if not found:
        choices = "; ".join(f"{each}: {', '.join(names)}" for each, names in known.items())
        raise InputError(f"--over {key} is no family of the config: choose one of {choices}")
    return found[0], (first, *rest)


def families(stage: str) -> dict[str, list[str]]:
    """The keys of a stage that `over` takes, and their choices."""
    found = {name: list(_values(info.annotation)) for name, info in STAGES[stage].model_fields.items()}
    return {name: values for name, values in found.items() if values}


def _choices(config: RunConfig, stage: str, path: tuple[str, ...]) -> tuple[dict[str, Any], str | None]:
    """Name -> value of the key, by the types on the way to it; and the kind that the config has."""
    here: Any = getattr(config, stage)
    annotation: Any = None
    for depth, name in enumerate(path):
        place = ".".join((stage, *path[:depth]))
        fields = type(here).model_fields if isinstance(here, BaseModel) else {}
        if here is None:
            raise InputError(
                f"--over {'.'.join(path)} needs {place}, which this config leaves empty: set it with --set {place}=..."
            )
        if name not in fields:
            raise InputError(
                f"--over {'.'.join(path)}: {place} has no key {name!r}: choose one of {', '.join(fields) or 'none'}"
            )
        annotation, here = fields[name].annotation, getattr(here, name)
    found = _values(annotation)
    if not found:
        raise InputError(f"--over {'.'.join(path)} is a value and no choice between kinds: use --variant to name the values")
    return found, getattr(here, "kind", None)


def _values(annotation: Any) -> dict[str, Any]:
    members, optional = _members(annotation)
    specs = [each for each in members if isinstance(each, type) and issubclass(each, BaseModel)]
    with_kind = {each.model_fields["kind"].default: each for each in specs if "kind" in each.model_fields}
    empty = {WITHOUT: None} if optional else {}
    if with_kind:
        return empty | {str(kind): {"kind": kind} for kind in with_kind}
    if specs:
        return empty | {DEFAULTS: {}}
    if members == [bool]:
        return {"false": False, "true": True}
    if members and all(get_origin(each) is Literal for each in members):
        return empty | {str(value): value for each in members for value in get_args(each)}
    return {}


def _members(annotation: Any) -> tuple[list[Any], bool]:
    """The types of a union, nested and annotated ones taken apart, and whether None is one."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, UnionType):
        return ([], True) if annotation is NoneType else ([annotation], False)
    parts = [_members(each) for each in get_args(annotation)]
    return [each for members, _ in parts for each in members], any(optional for _, optional in parts)


def _with(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    """The tree with the value at the path, whatever was there."""
    if not path:
        return value
    here = dict(tree or {})
    here[path[0]] = _with(here.get(path[0]), path[1:], value)
    return here


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"
