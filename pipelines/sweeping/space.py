"""What a sweep searches: config keys, and the values that each may take."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from pipelines.ablation.variants import FIXED, STAGE_NAMES, STAGES
from pipelines.parents import settings
from pipelines.sweeping.entries import COUNTABLE, Choices, Range, flow
from recsys.config import RunConfig
from recsys.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Load = Callable[..., RunConfig]  # of overrides of the form key=value
Point = Mapping[str, Any]  # a value, or the label of a choice, for every key
FORM = "write 'section.key: [value, value]' or 'section.key: {low: 1, high: 8}'"


@dataclass(frozen=True)
class Space:
    """By config key, what it may be; `stage` is what is trained for every point."""

    entries: Mapping[str, Range | Choices]
    stage: str

    def distributions(self) -> "dict[str, BaseDistribution]":
        return {key: entry.distribution() for key, entry in self.entries.items()}

    def values(self, point: Point) -> dict[str, Any]:
        """Key -> value as the config takes it."""
        return {key: entry.value(point[key]) for key, entry in self.entries.items()}

    def epochs(self, config: RunConfig) -> int:
        """The most epochs that a trial may train."""
        entry = self.entries.get(f"{self.stage}.fit.epochs")
        if entry is None:
            return int(getattr(config, self.stage).fit.epochs)
        return max(map(int, entry.probes()))

    def points(self) -> Iterator[dict[str, Any]] | None:
        """Every point; None where there are too many to count."""
        axes = [entry.points() for entry in self.entries.values()]
        known = [axis for axis in axes if axis is not None]
        if len(known) < len(axes) or math.prod(map(len, known)) > COUNTABLE:
            return None
        return (dict(zip(self.entries, each, strict=True)) for each in itertools.product(*known))

    def document(self) -> dict[str, Any]:
        return {key: entry.model_dump(mode="json", exclude_none=True) for key, entry in self.entries.items()}

    def point_of(self, config: RunConfig, load: Load) -> dict[str, Any] | None:
        """Where in the space the config itself stands; None where it is outside."""
        found: dict[str, Any] = {}
        for key, entry in self.entries.items():
            if isinstance(entry, Range):
                held = entry.holding(_at(config, key))
            else:
                same = (
                    label
                    for label, value in zip(entry.labels, entry.values, strict=True)
                    if load(override(key, value)) == config
                )
                held = next(((label,) for label in same), None)
            if held is None:
                return None
            found[key] = held[0] if isinstance(held, tuple) else held
        return found


def read_space(texts: list[str], file: Path | None, config: RunConfig, load: Load, stage: str | None = None) -> Space:
    """The space of --search and --space, checked against the config. Raises InputError with the key and its choices."""
    if stage not in (None, *STAGES):
        raise InputError(f"--stage {stage!r} is unknown: choose {STAGE_NAMES}")
    found: dict[str, Range | Choices] = {}
    for where, text in [*([(str(file), _text(file))] if file else []), *((f"--search {each!r}", each) for each in texts)]:
        for key, value in _mapping(where, text).items():
            if key in found:
                raise InputError(f"{where} names {key} once more: leave one of them out")
            found[key] = _entry(f"{where}: {key}", value)
    if not found:
        raise InputError("nothing to search: say --search 'retriever.fit.learning_rate: {low: 1e-4, high: 1e-2, log: true}'")
    for key in found:
        if key.split(".")[0] in FIXED:
            raise InputError(
                f"{key} cannot be searched, since `{key.split('.')[0]}` must be equal in all trials: use --set for it"
            )
        if around := [other for other in found if key.startswith(other + ".")]:
            raise InputError(
                f"{key} lies in {around[0]}, which is searched too: put its values into the choices of {around[0]}"
            )
    chosen = stage or _stage(found)
    for key, entry in found.items():
        loaded = [_loaded(key, value, load) for value in entry.probes()]
        if isinstance(entry, Choices) and (twice := [place for place, each in enumerate(loaded) if each in loaded[:place]]):
            raise InputError(f"{key}: {flow(entry.values[twice[0]])} says the same as a choice before it: leave one out")
        if getattr(config, chosen) is not None and all(settings(each, chosen) == settings(config, chosen) for each in loaded):
            raise InputError(f"{key} changes nothing of the {chosen}: leave it out, or choose another --stage")
    return Space(found, chosen)


def override(key: str, value: Any) -> str:
    """The text that --set takes."""
    return f"{key}={flow(value)}"


def _mapping(where: str, text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(f"{where} does not map config keys to values: {FORM}")
    return found


def _entry(where: str, value: Any) -> Range | Choices:
    try:
        if isinstance(value, list):
            return Choices(values=tuple(value))
        if isinstance(value, dict):
            return Range.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = str(first["loc"][0]) if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {place + ': ' if place else ''}{message}") from error
    raise InputError(f"{where}: {value!r} is neither a list nor a range: {FORM}")


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--space {file} cannot be read ({error}): name a YAML file of config keys and their values"
        ) from error


def _loaded(key: str, value: Any, load: Load) -> RunConfig:
    try:
        return load(override(key, value))
    except InputError as error:
        raise InputError(f"{key} cannot be {flow(value)}: {error}") from error


def _stage(found: Mapping[str, Any]) -> str:
    named = {key.split(".")[0] for key in found}
    if len(named) == 1 and named <= set(STAGES):
        return named.pop()
    raise InputError(f"the keys {', '.join(found)} are not all of one stage: say which to train by --stage")


def _at(config: RunConfig, key: str) -> Any:
    here: Any = config.model_dump(mode="json")
    for part in key.split("."):
        if not isinstance(here, dict) or part not in here:
            return None
        here = here[part]
    return here
