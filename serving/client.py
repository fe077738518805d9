"""Ask a running service from Python, with the standard library and the API's own classes."""

import http.client
import json
import random
import socket
import threading
import time
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from recsys.errors import InputError
from recsys.spec import Spec
from serving.answers import Accepted, Forgotten, Health, Info, Ranked, Recommendations, Similar
from serving.event_id import event_id
from serving.schema import MAX_EVENTS, Body, Event, Events, Query, RankQuery, SimilarQuery, parse

AnySpec = TypeVar("AnySpec", bound=Spec)
RETRIED = (429, 503)  # statuses that ask for another try
MAX_WAIT_S = 5.0


class ServerError(RuntimeError):
    """The server could not answer, even when asked again."""


class Client:
    """One per server; threads may share it, each has a connection of its own.

    Fields are those of `serving.schema` and `serving.answers`.

    What fails for a moment (no connection, status 429 or 503) is tried again, with twice the time in between each time and up
    to half of it at random, so that clients do not come back all at once; a Retry-After of the server counts for more. That is
    safe: every request can come twice without harm, since events get an id here. Raises InputError with the server's own
    sentence for what the caller can mend, ServerError for what they cannot.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 30, retries: int = 2, wait_s: float = 0.1
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"url is {url!r}: give one like http://127.0.0.1:3000")
        key = (api_key or "").strip()  # as it stands in a file, with its newline
        if not (key.isascii() and key.isprintable()):
            raise InputError("api_key has characters that no key has: pass the one line that `recsys keys add` printed")
        self.url, self.timeout_s, self.retries, self.wait_s = url.rstrip("/"), timeout_s, retries, wait_s
        self._parts, self._local = parts, threading.local()
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def recommend(self, query: Query | None = None, /, **fields: Any) -> Recommendations:
        """The k best items, as in `client.recommend(user_id="u1", k=5)`."""
        return self._post("/recommend", _body(Query, query, fields), Recommendations)

    def rank(self, query: RankQuery | None = None, /, **fields: Any) -> Ranked:
        return self._post("/rank", _body(RankQuery, query, fields), Ranked)

    def similar(self, query: SimilarQuery | None = None, /, **fields: Any) -> Similar:
        return self._post("/similar", _body(SimilarQuery, query, fields), Similar)

    def events(self, *events: Event) -> Accepted:
        """Tell what users did. An event without an id gets one, so that it counts once however often it is sent."""
        if not 0 < len(events) <= MAX_EVENTS:
            raise InputError(f"{len(events)} events are given: post 1 to {MAX_EVENTS} at a time")
        named = [each if each.id else each.model_copy(update={"id": event_id()}) for each in events]
        return self._post("/events", Events(events=named), Accepted)

    def forget(self, user_id: str) -> Forgotten:
        return self._ask("DELETE", f"/users/{quote(user_id, safe='')}", None, Forgotten)

    def info(self) -> Info:
        return self._ask("GET", "/info", None, Info)

    def health(self) -> Health:
        return self._ask("GET", "/healthz", None, Health)

    def close(self) -> None:
        """Close this thread's connection; another request opens a new one."""
        if (connection := getattr(self._local, "connection", None)) is not None:
            connection.close()
            self._local.connection = None

    def _post(self, path: str, body: Body, answer: type[AnySpec]) -> AnySpec:
        return self._ask("POST", path, body.model_dump_json(exclude_unset=True).encode(), answer)

    def _ask(self, method: str, path: str, body: bytes | None, answer: type[AnySpec]) -> AnySpec:
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            wait_s = self.wait_s * 2**attempt * random.uniform(0.5, 1)
            try:
                status, text, retry_after = self._send(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if last:
                    raise InputError(
                        f"{self.url} does not answer ({error}): start it with `recsys serve`, or name another url"
                    ) from error
            else:
                if status < 400:
                    return answer.model_validate_json(text, extra="ignore")  # a newer server may say more
                if last or status not in RETRIED:
                    raise _refusal(self.url, status, text)
                wait_s = max(wait_s, retry_after)
            time.sleep(min(wait_s, MAX_WAIT_S))
        raise AssertionError("the last attempt returns or raises")

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes, float]:
        """Status, body and seconds to wait. A connection that the server closed while it was idle shows as an OSError."""
        connection = self._connection()
        connection.request(method, self._parts.path.rstrip("/") + path, body, self._headers)
        response = connection.getresponse()
        after = response.headers.get("Retry-After", "")
        return response.status, response.read(), float(after) if after.isdigit() else 0.0

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
            connection = kind(str(self._parts.hostname), self._parts.port, timeout=self.timeout_s)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # headers and body are two small writes
            self._local.connection = connection
        return connection


def ask(url: str, *, timeout_s: float = 30, api_key: str | None = None, **query: Any) -> dict[str, Any]:
    """POST /recommend once, as plain data. Raises as `Client` does."""
    client = Client(url, api_key=api_key, timeout_s=timeout_s, retries=0)
    try:
        return client.recommend(**query).model_dump()
    finally:
        client.close()


def _body(kind: type[Any], given: Any, fields: dict[str, Any]) -> Any:
    """The server would say the same about fields that are wrong."""
    return given if given is not None else parse(kind, json.dumps(fields))


def _refusal(url: str, status: int, text: bytes) -> Exception:
    try:
        sentence = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        sentence = f"{url} gave status {status}: is it a server of recsys?"
    return ServerError(sentence) if status >= 500 else InputError(sentence)
