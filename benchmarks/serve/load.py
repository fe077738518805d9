"""A client that costs little: connections that each send the next request when the answer to the last one is there.

One process, one event loop, HTTP written and read by hand, since on two shared cores what the client spends the server lacks.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import numpy as np


class Connection(asyncio.Protocol):
    """Sends requests one after the other until `more` has none, and notes how long each took."""

    def __init__(self, load: "Load") -> None:
        self.load, self.buffer = load, bytearray()
        self.began = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.buffer) < end + 4 + length:
            return
        self.load.note(time.perf_counter() - self.began, int(head[9:12]), bytes(self.buffer[end + 4 : end + 4 + length]))
        del self.buffer[: end + 4 + length]
        if b"connection: close" in head:
            self.transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        request = self.load.next()
        if request is None:
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)


class Load:
    """`requests`: whole HTTP requests, taken in turn. It ends after `total` of them or after `seconds`."""

    def __init__(self, requests: list[bytes], total: int, seconds: float, expected: list[bytes]) -> None:
        self.requests, self.total, self.expected = requests, total, expected
        self.deadline = time.perf_counter() + seconds
        self.sent = 0
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.wrong = 0
        self.versions: Counter[str] = Counter()

    def next(self) -> bytes | None:
        if self.sent >= self.total or time.perf_counter() > self.deadline:
            return None
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    def note(self, seconds: float, status: int, body: bytes) -> None:
        self.seconds.append(seconds)
        self.statuses[status] += 1
        if status != 200 or any(part not in body for part in self.expected):
            self.wrong += 1
        if (place := body.find(b'"version":"')) >= 0:
            self.versions[body[place + 11 : place + 27].decode()] += 1


def run(
    host: str, port: int, path: str, bodies: list[str], connections: int, *, total: int = 10**9, seconds: float = 1e9,
    warm_up: int = 200, expected: list[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Ask, and tell requests per second, percentiles in ms, statuses, and answers that lack an expected text."""
    requests = [_request(path, body) for body in bodies]
    parts = [each.encode() for each in expected or []]
    if warm_up:
        asyncio.run(_drive(Load(requests, warm_up, seconds, parts), host, port, connections))
    load = Load(requests, total, seconds, parts)
    began = time.perf_counter()
    asyncio.run(_drive(load, host, port, connections))
    took = time.perf_counter() - began
    ms = np.array(load.seconds) * 1e3
    percentiles = {f"p{name}": round(float(np.percentile(ms, at)), 3) for name, at in (("50", 50), ("90", 90), ("99", 99))}
    return {
        "requests": len(ms), "per_s": round(len(ms) / took, 1), **percentiles, "max": round(float(ms.max()), 3),
        "statuses": dict(load.statuses), "unanswered": load.sent - len(ms), "wrong": load.wrong,
        "versions": dict(load.versions),
    }  # fmt: skip


def _request(path: str, body: str) -> bytes:
    content = body.encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def _drive(load: Load, host: str, port: int, connections: int) -> None:
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Connection(load), host, port) for _ in range(connections)]
    await asyncio.gather(*(protocol.done for _, protocol in opened))
