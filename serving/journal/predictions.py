"""What the model said of the items of a list, a line for each list: from it and the events that follow come the model's errors.

Written only where the bundle has an error memory (`serving.error_memory`). docs/error-memory.md lists the keys.
"""

import json
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, model_validator

from recsys.error_memory import ErrorMemorySpec
from recsys.spec import Spec
from serving.answers import Recommendations
from serving.bundle.bundle import Bundle
from serving.cascade.asked import Asked
from serving.cascade.score import Scored


class Prediction(Spec):
    model_config = ConfigDict(frozen=True, extra="ignore")
    request_id: str
    user_id: str
    served_ms: int  # by the server's clock
    time_ms: int  # the moment of the request, which it may name itself
    version: str
    compensated: bool
    history: tuple[str, ...]
    items: tuple[str, ...] = Field(min_length=1)
    tasks: dict[str, tuple[Annotated[float, Field(allow_inf_nan=False)], ...]]  # by task, of each item

    @model_validator(mode="after")
    def _lists_fit(self) -> "Prediction":
        if any(len(values) != len(self.items) for values in self.tasks.values()):
            raise ValueError("a task has not one number for each item")
        return self


def prediction_line(
    user_id: str, bundle: Bundle, asked: Asked, scored: Scored, answer: Recommendations, spec: ErrorMemorySpec, now_ms: int
) -> bytes:
    """Of the items that the ranker saw; nothing where there is none."""
    shown = [item.item_id for item in answer.items if item.tasks]
    if not shown:
        return b""
    place_of = {item: place for place, item in enumerate(scored.item_K.tolist())}
    place_K = np.array([place_of[bundle.item_index.find(text)] for text in shown])
    record = {
        "request_id": answer.request_id, "user_id": user_id, "served_ms": now_ms, "time_ms": asked.now_ms,
        "version": bundle.version, "compensated": scored.said_KT is not scored.probability_KT,
        "history": [bundle.item_id(item) for item in asked.history_L[-spec.history :].tolist()],
        "items": shown,
        "tasks": {task: scored.said_KT[place_K, bundle.facts.tasks.index(task)].tolist() for task in spec.tasks},
    }  # fmt: skip
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def prediction_of(line: bytes) -> Prediction | None:
    """None for a line that cannot be read."""
    try:
        return Prediction.model_validate_json(line)
    except ValidationError:
        return None
