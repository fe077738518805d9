"""What clients get: every answer of the API. What they send is in `schema.py`.

Neither knows a bundle or a server, so that the typed client and the OpenAPI page are made of the same classes.
"""

from typing import Any, Literal

from pydantic import Field

from recsys.spec import Spec

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
