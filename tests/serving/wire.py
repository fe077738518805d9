"""HTTP as a test wants it: status, headers and body of any request, and bytes of a socket."""

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serving.endpoint import Endpoint
from serving.models.deployment import Deployment, Placed, write
from serving.settings import Settings

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a refusal, which is all that its body has."""
        assert list(self.json) == ["error"]
        return self.json["error"]


def send(url: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """A body that is not bytes is sent as JSON. An underscore in a header's name becomes a dash."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, {**JSON, **named})
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


async def ask_app(app: Any, method: str, path: str, body: bytes = b"") -> Answer:
    """The same of an app in this process, for what cannot be arranged in another one."""
    sent: list[dict[str, Any]] = []
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": [], "client": None}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, keep)
    start, end = sent
    return Answer(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, end["body"])


@contextmanager
def own_endpoint(bundle: Path, live: Path, **settings: Any) -> Iterator[Endpoint]:
    write(Deployment(live=Placed(folder=bundle)), live)
    endpoint = Endpoint(Settings(live=live, **settings))
    yield endpoint
    asyncio.run(endpoint.close())


def exchange(url: str, *sent: bytes, timeout_s: float = 10) -> bytes:
    """What comes back on a socket until the server closes it; b"" where it closes without a word."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=timeout_s) as connection:
        for each in sent:
            connection.sendall(each)
        chunks = []
        while chunk := connection.recv(65_536):
            chunks.append(chunk)
    return b"".join(chunks)
