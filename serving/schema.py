"""What clients send: every body of the API, strict, with one sentence for the first thing that is wrong.

What they get is in `answers.py`. Neither knows a bundle or a server, so that the typed client and the OpenAPI page are made of
the same classes.
"""

import json
import reprlib
from typing import Annotated, Any, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from recsys.errors import InputError
from recsys.spec import Spec

MAX_IDS = 10_000
MAX_EVENTS = 1_000  # of one post
MAX_TEXT = 1_000
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Id = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="version of a bundle")]
TimeMs = Annotated[int, Field(ge=0, le=2**53)]


class Body(Spec):
    model_config = ConfigDict(strict=True)


class Asker(Body):
    """Who asks, and when: what every question about a user has."""

    user_id: Id | None = None
    history: list[Text] | None = Field(None, max_length=MAX_IDS, description="item ids, oldest first, in place of a user")
    context: dict[str, Text] | None = Field(None, description="category by feature; one never seen is unknown")
    time_ms: TimeMs | None = Field(
        None,
        description="when the list is asked for, milliseconds since 1970; default: now. Items of `history` count as of then",
    )
    version: Text | None = Field(None, description="the version of the model that is to answer; default: the server's choice")
    compensate: bool = Field(True, description="correct the ranker by its errors of late, where the bundle has an error memory")

    @model_validator(mode="after")
    def _one_of_user_and_history(self) -> Self:
        if (self.user_id is None) == (self.history is None):
            given = "neither" if self.user_id is None else "both"
            raise ValueError(f"{given} of `user_id` and `history` given: send exactly one of them")
        return self


class Query(Asker):
    """Which k items for whom."""

    model_config = ConfigDict(json_schema_extra={"example": {"user_id": "u1", "k": 10}})
    k: int = Field(10, ge=1)
    exclude: list[Text] = Field([], max_length=MAX_IDS, description="never these items")
    allow: list[Text] | None = Field(None, max_length=MAX_IDS, description="only these items")
    categories: list[Text] | None = Field(None, max_length=MAX_IDS, description="only items of these categories")
    region: Text | None = Field(None, description="only items that are sold there, where the catalogue says so")
    filter_seen: bool = True
    explain: bool = Field(False, description="also tell the history that was read, all candidates, and the time of each stage")


class RankQuery(Asker):
    """How good are these items for whom."""

    model_config = ConfigDict(json_schema_extra={"example": {"user_id": "u1", "items": ["i1", "i2"]}})
    items: list[Text] = Field(min_length=1, max_length=MAX_IDS)


class SimilarQuery(Body):
    """Which k items are most like one."""

    model_config = ConfigDict(json_schema_extra={"example": {"item_id": "i1", "k": 5}})
    item_id: Id
    k: int = Field(10, ge=1)
    exclude: list[Text] = Field([], max_length=MAX_IDS)
    version: Text | None = None


class Event(Body):
    """Something that a user did."""

    model_config = ConfigDict(json_schema_extra={"example": {"id": "e-1", "user_id": "u1", "item_id": "i7", "event": "click"}})
    user_id: Id
    item_id: Id
    event: Id = Field("click", description="what was done, such as click, like or purchase")
    id: Id | None = Field(None, description="idempotency key: an event with an id that came before counts once")
    time_ms: TimeMs | None = Field(None, description="milliseconds since 1970; default: now")
    request_id: Id | None = Field(None, description="of the list in which the item stood")


class Events(Body):
    model_config = ConfigDict(
        json_schema_extra={"example": {"events": [{"id": "e-1", "user_id": "u1", "item_id": "i7", "event": "click"}]}}
    )
    events: list[Event] = Field(min_length=1, max_length=MAX_EVENTS)


class DeployOrder(Body):
    """Make a version, which lies in the server's models folder, the live one."""

    model_config = ConfigDict(json_schema_extra={"example": {"version": "5c1ffa0c7a3b9d20"}})
    version: Fingerprint


class CanaryOrder(Body):
    """Give a share of the users another version; a share of 0 ends it."""

    model_config = ConfigDict(json_schema_extra={"example": {"version": "5c1ffa0c7a3b9d20", "share": 0.05}})
    version: Fingerprint
    share: float = Field(ge=0, lt=1)

    @field_validator("share", mode="before")
    @classmethod
    def _whole_numbers_too(cls, share: Any) -> Any:
        return float(share) if isinstance(share, int) and not isinstance(share, bool) and abs(share) <= 1 else share


class RollbackOrder(Body):
    """Nothing to say: an empty object."""

    model_config = ConfigDict(json_schema_extra={"example": {}})


AnyBody = TypeVar("AnyBody", bound=Body)


def parse(kind: type[AnyBody], body: bytes | str) -> AnyBody:
    """A body from JSON. Raises InputError with one sentence about the first thing that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise InputError(_sentence(kind, error)) from error


def _sentence(kind: type[Body], error: ValidationError) -> str:
    """The first thing wrong: field, value and what to send instead."""
    first = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in first["loc"]).lstrip(".")
    match first["type"]:
        case "value_error":
            return str(first["ctx"]["error"])
        case "json_invalid":
            example: Any = kind.model_config.get("json_schema_extra", {})
            return f"body is not JSON ({first['ctx']['error']}): send an object like {json.dumps(example.get('example', {}))}"
        case "extra_forbidden":
            fields = ", ".join(_fields(kind, first["loc"]))
            return f"unknown field {reprlib.repr(place)}: " + (f"the fields are {fields}" if fields else "there are no fields")
        case "missing":
            return f"{place} is missing: send it"
        case _:
            message = first["msg"][0].lower() + first["msg"][1:]
            return f"{place or 'body'} is {reprlib.repr(first['input'])}: {message}"


def _shown(key: str) -> str:
    """A key as a sentence can show it: callers choose the keys of `context`, and their length."""
    return key if key.isidentifier() and len(key) <= 40 else reprlib.repr(key)


def _fields(kind: type[Body], place: tuple[int | str, ...]) -> list[str]:
    """The fields of the body, or of the event, in which an unknown one stands."""
    inner = Event if kind is Events and len(place) > 1 else kind
    return list(inner.model_fields)
