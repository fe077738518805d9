"""Answers on their way out. Plain ASGI messages: a Starlette Response costs 10 microseconds more."""

import json
from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import Send

from recsys.spec import Spec
from serving.api.refused import RefusedError

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),  # answers are of one user and one moment
    (b"referrer-policy", b"no-referrer"),
]
JSON_HEADERS = [(b"content-type", b"application/json"), *SECURITY_HEADERS]


@dataclass(frozen=True)
class Reply:
    """`headers`: all but content-length, names in lower case."""

    body: bytes
    status: int = HTTPStatus.OK
    headers: tuple[tuple[bytes, bytes], ...] = tuple(JSON_HEADERS)


def as_json(answer: Spec) -> Reply:
    return Reply(answer.__pydantic_serializer__.to_json(answer))


def as_text(body: bytes, media_type: str) -> Reply:
    return Reply(body, headers=((b"content-type", media_type.encode()), *SECURITY_HEADERS))


def refusal(error: RefusedError) -> Reply:
    more = tuple((name.encode(), value.encode()) for name, value in error.headers.items())
    return Reply(json.dumps({"error": error.sentence}).encode(), error.status, (*JSON_HEADERS, *more))


async def send_reply(send: Send, reply: Reply) -> None:
    length = (b"content-length", b"%d" % len(reply.body))
    await send({"type": "http.response.start", "status": int(reply.status), "headers": [*reply.headers, length]})
    await send({"type": "http.response.body", "body": reply.body})
