"""What clients send and get: every body of the API, strict, with one sentence for the first thing that is wrong.

Nothing here knows a bundle or a server, so that the typed client and the OpenAPI page are made of the same classes.
"""

import json
import reprlib
from typing import Annotated, Any, Literal, Self, TypeVar

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

# Where an item of a list comes from, best first: the graphs, then what stands in where they have nothing to say.
Source = Literal["generation", "retrieval", "session", "segment", "popularity", "caller"]  # caller: of /rank
Rung = Literal["retrieval", "session", "segment", "popularity"]
# What the answer could not do as asked; an answer without flags is the model's own.
Flag = Literal[
    "unknown_user",  # neither the bundle nor the state knows the user
    "empty_history",  # nothing to go by
    "state_unavailable",  # recent events could not be read, or not be written
    "model_failed",  # a graph failed or took too long
    "filters_relaxed",  # fewer than k items were left, so that seen, expired or sold-out items stand at the end
    "short",  # fewer than k items even so
]


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


class Item(Spec):
    item_id: str
    title: str | None = None
    score: float = Field(description="the value formula over the tasks; the score of the source where there are no tasks")
    retrieval_score: float | None = Field(
        description="of the graph in `source`, the retriever's similarity or the generator's log-probability of the item; "
        "scores of two sources cannot be compared. Null where no graph found the item"
    )
    source: Source = Field(description="what found the item")
    tasks: dict[str, float] = Field(description="probability of each task; empty where the ranker did not see the item")
    propensity: float | None = Field(None, description="chance with which the item came to its place, where chance had a part")
    reason: str = Field("", description="why it is here, in words")


class HistoryEntry(Spec):
    item_id: str
    title: str | None = None
    time_ms: int | None = None
    live: bool = Field(description="whether it was posted to this endpoint, and not yet there when the model was made")


class Explanation(Spec):
    history: list[HistoryEntry] = Field(description="what the model read, oldest first; the newest 200")
    candidates: list[Item] = Field(description="what was found, by value; at most 200")
    stages_ms: dict[str, float] = Field(description="time in the state, the graphs, and reranking with filling up")


class Recommendations(Spec):
    """Best first. `unknown_items` are the caller's ids that the bundle does not have."""

    request_id: str
    items: list[Item]
    fallback: Rung | None = Field(
        description="what filled places because the rungs above it had too few items: retrieval (after a generator), session "
        "(what others had together with the user's items), segment (what is popular with users like this one), popularity; "
        "null: none did"
    )
    flags: list[Flag]
    unknown_items: list[str]
    model: str
    version: str
    arm: Literal["live", "canary", "pinned"] = Field(description="why this version answered")
    explanation: Explanation | None = None


class Ranked(Spec):
    """The items asked about, best first."""

    request_id: str
    items: list[Item]
    flags: list[Flag]
    unknown_items: list[str]
    model: str
    version: str
    arm: Literal["live", "canary", "pinned"]


class Similar(Spec):
    items: list[Item] = Field(description="by cosine of the items' vectors, which is `score`")
    model: str
    version: str


class Accepted(Spec):
    accepted: int = Field(description="events that are stored now")
    duplicates: int = Field(
        description="events that do not count (any more): their id was there before, or they are from before their user was "
        "forgotten"
    )
    unknown_items: list[str] = Field(description="items that the model does not know yet; their events are kept")
    flags: list[Flag]


class Forgotten(Spec):
    user_id: str
    events: int = Field(description="how many recent events were deleted")
    flags: list[Flag] = Field([], description="state_unavailable: the store is away, and deletes when it is back")


class Health(Spec):
    status: Literal["ok"]
    model: str
    version: str


class Alive(Spec):
    status: Literal["ok"]


class CanaryFacts(Spec):
    version: str | None = Field(description="null: whatever bundle lies in the canary's folder")
    share: float = Field(description="of the users")


class Deployed(Spec):
    """Which versions this server is to answer with."""

    live: str
    previous: str | None = Field(description="what a rollback goes back to")
    canary: CanaryFacts | None


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


class ModelInfo(Spec):
    """What a loaded model takes and gives."""

    name: str
    version: str
    tasks: list[str]
    value: dict[str, float] | str = Field(description="task -> weight in an item's score, or a formula over the tasks")
    context: dict[str, list[str]] = Field(description="feature -> values that `context` may have; the first thousand of them")
    category: dict[str, list[str]] = Field(description="the feature of `categories` -> its values; the first thousand of them")
    max_history: int = Field(description="how many of a user's last items are read")
    max_k: int


class Info(Spec):
    """Where the answers come from, from the raw data's hash to this process."""

    model: str
    version: str
    lineage: dict[str, Any] = Field(description="of the bundle: hashes of raw data, dataset and checkpoints, config, commit")
    deployment: Deployed
    models: dict[str, ModelInfo] = Field(description="those loaded now, by place: live, previous, canary")
    parity_max_error: dict[str, float] | None = Field(description="by graph: largest difference from torch when it was made")
    providers: list[str] = Field(description="where ONNX Runtime runs the graphs")
    replica: str = Field(description="a hash of the host's name, and the process")
    started: str = Field(description="of the process, ISO 8601")
    package: str = Field(description="version of recsys")
    state: str = Field(description="kind of the state store")
    refused: dict[str, Any] | None = Field(description="why the last new model was not taken in, if it was not")
    follow: dict[str, Any] | None = Field(description="what follows the model registry last said, if something does")


class Refusal(Spec):
    """The body of every answer with a status of 400 or more."""

    error: str


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
