"""What a loop plays: a world, and policies that differ in their config or in how the loop treats them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import Field, ValidationError

from pipelines.ablation.variants import NAME
from recsys.config import RunConfig
from recsys.errors import InputError
from recsys.simulate import Simulation
from recsys.spec import Spec
from serving.schema import Query, parse

BASE, LOOP = "base", "loop."  # the policy without changes; keys of --vary that are the loop's own
ASKED = ("user_id", "time_ms", "context", "k", "history")  # what the world says of a request


class LoopConfig(Spec):
    """How days are played."""

    days: int = Field(7, ge=1, le=365, description="days that the endpoint serves")
    warm_up: int = Field(14, ge=2, le=365, description="days of log before them, shown by the world's own policy")
    train_every: int = Field(1, ge=0, description="days from one daily run to the next; 0: the first model stays")
    ask: dict[str, Any] = Field(
        {"filter_seen": False},
        description="further fields of every request; users of this world like what they liked before, so it may come again",
    )


@dataclass(frozen=True)
class Policy:
    """Everything that two policies may differ in."""

    name: str
    config: RunConfig
    loop: LoopConfig


def world_of(loop: LoopConfig, *, events: int, **sizes: Any) -> Simulation:
    """The world whose first `warm_up` days have `events` impressions; each day of the loop has as many as one of those."""
    try:
        return Simulation(events=events * (loop.warm_up + loop.days) // loop.warm_up, days=loop.warm_up + loop.days, **sizes)
    except ValidationError as error:
        raise InputError(sentence(error)) from error


def policies(loop: LoopConfig, texts: Sequence[str], load: Callable[..., RunConfig]) -> list[Policy]:
    """The base and those of `NAME: {section.key: value, loop.key: value}`, in YAML. `load(*overrides)` reads the base config.

    Raises InputError for what cannot be played or compared.
    """
    base = Policy(BASE, load(), loop)
    found = {BASE: base}
    for text in texts:
        for name, changes in _named(text).items():
            if name in found:
                raise InputError(
                    f"--vary names {name!r} twice{' (it is the config as it is)' if name == BASE else ''}: rename it"
                )
            found[name] = _changed(name, changes, loop, load)
            if found[name].config == base.config and found[name].loop == loop:
                raise InputError(f"--vary {name} changes nothing: name a key with another value than the config's")
            if found[name].config.data.events != base.config.data.events:
                raise InputError(f"--vary {name} changes data.events, which says how the world's log is read: leave it")
    for policy in found.values():
        _check(policy)
    return list(found.values())


def _check(policy: Policy) -> None:
    if policy.config.data.events.arrives == "together":
        raise InputError("data.events.arrives is together, and a loop's log arrives day by day: set it to by_folder")
    if theirs := [field for field in policy.loop.ask if field in ASKED]:
        raise InputError(f"loop.ask names {theirs[0]}, which the world says of each request: remove it")
    parse(Query, json.dumps({"user_id": "u0", **policy.loop.ask}))


def _named(text: str) -> dict[str, dict[str, Any]]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--vary {text!r} is not valid YAML: {' '.join(str(error).split())}") from error
    good = isinstance(found, dict) and all(
        isinstance(name, str)
        and NAME.fullmatch(name)
        and isinstance(value, dict)
        and all(isinstance(key, str) for key in value)
        for name, value in found.items()
    )
    if not good:
        raise InputError(
            f"--vary {text!r} does not map a name of letters and digits to keys: write 'NAME: {{section.key: value}}'"
        )
    return dict(found)


def _changed(name: str, changes: dict[str, Any], loop: LoopConfig, load: Callable[..., RunConfig]) -> Policy:
    own = {key.removeprefix(LOOP): value for key, value in changes.items() if key.startswith(LOOP)}
    if fixed := [key for key in own if key in ("days", "warm_up")]:
        raise InputError(f"--vary {name} changes loop.{fixed[0]}, which must be equal for all policies: use its own option")
    overrides = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}"
        for key, value in changes.items()
        if not key.startswith(LOOP)
    ]
    try:
        return Policy(name, load(*overrides), LoopConfig(**{**loop.model_dump(), **own}))
    except ValidationError as error:
        raise InputError(f"--vary {name}: loop.{sentence(error)}") from error
    except InputError as error:
        raise InputError(f"--vary {name}: {error}") from error


def sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place + ' = ' + repr(first['input']) + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
