"""What stands between the network and BentoML: a size limit, strict parsing, and one shape for every error.

BentoML alone logs a traceback for each bad request, names the field but not the value, answers some errors with a list or
with plain text, and has its own liveness page at /healthz.
"""

from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.errors import InputError
from serving.recommend import parse_query

MAX_BODY_BYTES = 1_000_000
DRAINED_BYTES = 8 * MAX_BODY_BYTES  # of a body that is too large, so that its sender gets to read the answer
ROUTES = "POST /recommend, GET /healthz, /readyz, /metrics and /docs.json"


class Edge:
    def __init__(self, app: ASGIApp, health: Callable[[], dict[str, str]]) -> None:
        self.app = app
        self.health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/healthz":
            await JSONResponse(self.health())(scope, receive, send)
        elif (scope["method"], scope["path"]) == ("POST", "/recommend"):
            body = await _read(receive)
            if refusal := _refusal(Headers(scope=scope), body):
                await refusal(scope, receive, send)
            else:
                await self.app(scope, _replay(body, receive), send)
        else:
            await self.app(scope, receive, _in_one_shape(scope, receive, send))


async def _read(receive: Receive) -> bytes:
    """The body, or its beginning where it is too large."""
    chunks, size, more = [], 0, True
    while more and size < DRAINED_BYTES:
        message = await receive()
        chunk = message.get("body", b"")
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
        size += len(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _refusal(headers: Headers, body: bytes) -> JSONResponse | None:
    media_type = headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if media_type != "application/json":
        return _error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-type is {media_type!r}: send application/json")
    if len(body) > MAX_BODY_BYTES:
        sentence = f"body is larger than {MAX_BODY_BYTES} bytes: shorten `history` and `exclude`"
        return _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
    try:
        parse_query(body)
    except InputError as error:
        return _error(HTTPStatus.BAD_REQUEST, str(error))
    return None


def _error(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was already read, then what comes after it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _in_one_shape(scope: Scope, receive: Receive, send: Send) -> Send:
    """A `send` that turns a plain-text error, such as an unknown path, into the JSON of all other errors."""
    refused = False

    async def reshape(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] >= 400:
            refused = True
            status = HTTPStatus(message["status"])
            sentence = f"{scope['method']} {scope['path'][:200]} gives {status} {status.phrase}: the routes are {ROUTES}"
            await _error(status, sentence)(scope, receive, send)
        elif not refused:
            await send(message)

    return reshape
