"""The lines of the journal: JSON objects, one a line. docs/state.md lists their keys.

Impressions are put together from text, ten times as fast as by `json.dumps`, since every list has them. Shapes: K = candidates.
"""

import json
from json.encoder import encode_basestring_ascii as quoted  # in C
from math import isfinite
from typing import Any

from recsys.columns import FIRST_ID
from serving.answers import Recommendations
from serving.bundle.bundle import Bundle
from serving.bundle.features import Features
from serving.cascade.asked import Asked
from serving.cascade.score import Scored
from serving.schema import Asker
from serving.state.store import LiveEvent

IMPRESSION, FORGOTTEN = "impression", "forgotten"
RESERVED = (IMPRESSION, FORGOTTEN)  # kinds that the server writes itself


def event_line(user_id: str, each: LiveEvent) -> bytes:
    return _line(
        {
            "id": each.id, "user_id": user_id, "item_id": each.item_id, "time_ms": each.time_ms, "event": each.event,
            "request_id": each.request_id, "received_ms": each.received_ms,
        }
    )  # fmt: skip


def event_of(line: bytes) -> tuple[str, LiveEvent] | None:
    """The user and event of a line; None for one that cannot be read, which no acknowledged event is."""
    try:
        found = json.loads(line)
        user_id, each = found["user_id"], (found["id"], found["item_id"], found["event"], found["time_ms"])
        return user_id, LiveEvent(*each, found["request_id"], found["received_ms"])
    except (ValueError, KeyError, TypeError):
        return None


def forgotten_line(user_id: str, now_ms: int) -> bytes:
    return _line({"user_id": user_id, "item_id": None, "time_ms": now_ms, "event": FORGOTTEN})


def forgotten_of(line: bytes) -> tuple[str, int] | None:
    """The user and the moment of a line; None for one that cannot be read."""
    try:
        found = json.loads(line)
        return found["user_id"], found["time_ms"]
    except (ValueError, KeyError, TypeError):
        return None


def impression_lines(user_id: str, time_ms: int, answer: Recommendations) -> bytes:
    """A line for every item of a list."""
    begin = (
        f'{{"user_id":{quoted(user_id)},"time_ms":{time_ms},"event":"{IMPRESSION}","request_id":{quoted(answer.request_id)},'
        f'"model":{quoted(answer.model)},"version":{quoted(answer.version)},"arm":"{answer.arm}","item_id":'
    )
    return "".join(
        f'{begin}{quoted(item.item_id)},"slot":{slot},"propensity":{_number(item.propensity)},"score":{_number(item.score)},'
        f'"source":"{item.source}"}}\n'
        for slot, item in enumerate(answer.items)
    ).encode()


def request_line(asker: Asker, bundle: Bundle, asked: Asked, scored: Scored, answer: Recommendations) -> bytes:
    """All that the graphs read and said, in external ids."""
    length, ids = len(asked.history_L), bundle.item_id
    return _line(
        {
            "request_id": answer.request_id, "user_id": asker.user_id, "time_ms": asked.now_ms, "version": answer.version,
            "history": [ids(item) for item in asked.history_L.tolist()],
            "history_ms": asked.time_M[:length].tolist(), "behaviours": asked.behaviour_L.tolist(),
            "context": asker.context or {},
            "items": [ids(item) for item in scored.item_K.tolist()],
            "tasks": {task: _numbers(scored.said_KT[:, t].tolist()) for t, task in enumerate(bundle.facts.tasks)},
            "value": _numbers(scored.value_K.tolist()),
            "known": asked.user >= FIRST_ID,
            **({"dense": _dense(bundle.features, asked, scored)} if bundle.features else {}),
        }
    )  # fmt: skip


def _dense(features: Features, asked: Asked, scored: Scored) -> dict[str, list[float | None]]:
    return {name: _numbers(values) for name, values in features.by_name(asked, scored.item_K).items()}


def _numbers(values: list[float]) -> list[float | None]:
    """JSON has no NaN, which stands where the ranker did not see an item."""
    return [value if isfinite(value) else None for value in values]


def _number(value: float | None) -> str:
    return "null" if value is None or not isfinite(value) else repr(value)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
