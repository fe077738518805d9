"""Request bodies: of JSON, and of a bounded size."""

from http import HTTPStatus

from starlette.types import Receive

from serving.api.refused import ClientGoneError, RefusedError

DRAINED_BODIES = 8  # times the limit: a sender that is cut off while it sends does not get to read the answer
JSON = b"application/json"


def check_media_type(headers: dict[bytes, bytes]) -> None:
    """A body without a type counts as JSON. Raises RefusedError."""
    given = headers.get(b"content-type", JSON)
    if given != JSON and (media_type := given.split(b";")[0].strip().lower()) != JSON:
        shown = repr(media_type[:80].decode("latin-1"))
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-type is {shown}: send application/json")
    if (encoding := headers.get(b"content-encoding", b"identity").lower()) != b"identity":
        shown = repr(encoding[:80].decode("latin-1"))
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-encoding is {shown}: send the body as it is")


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises RefusedError for one that is too large, having read some more of it, and ClientGoneError."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body") and len(body) <= max_bytes:
        return body  # nearly always all of it comes at once
    chunks, size = [body], len(body)
    while message.get("more_body") and size < DRAINED_BODIES * max_bytes:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    if size > max_bytes:
        sentence = f"body is larger than {max_bytes} bytes: shorten its lists, or post events in several requests"
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence, connection="close")
    return b"".join(chunks)
