"""Send anything over sockets, and say what came back."""

import random
import re
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.hostile_inputs import ATTACKS

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.I)
PATIENCE_S = 0.15  # for an answer to what may be no whole request
DOCUMENTED_5XX = "503"


@dataclass
class Tally:
    """Kind -> status, "closed" or "no answer" -> how often; and what should not have come."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    harm: list[str] = field(default_factory=list)

    def add(self, kind: str, outcome: str, sent: Any) -> None:
        self.counts.setdefault(kind, Counter())[outcome] += 1
        if outcome.startswith("5") and outcome != DOCUMENTED_5XX and len(self.harm) < 20:
            self.harm.append(f"{outcome} for {kind}: {sent[:300]!r}")

    def total(self) -> int:
        return sum(sum(counter.values()) for counter in self.counts.values())

    def statuses(self) -> Counter[str]:
        return sum(self.counts.values(), Counter())

    def merge(self, other: "Tally") -> None:
        for kind, counter in other.counts.items():
            self.counts.setdefault(kind, Counter()).update(counter)
        self.harm += other.harm


def attack(url: str, count: int, seed: int) -> Tally:
    """`count` requests of all kinds, one after the other. Follows from `seed`."""
    rng, tally = random.Random(seed), Tally()
    kinds = rng.choices(list(ATTACKS), [share for share, _ in ATTACKS.values()], k=count)
    line = _Line(url)
    for kind in kinds:
        sent = ATTACKS[kind][1](rng)
        if kind == "mutated JSON":
            tally.add(kind, line.ask(sent), sent)
        else:
            outcomes = one_connection(url, sent, patience_s=5 if kind == "large body" else PATIENCE_S)
            for outcome in outcomes or ["no answer"]:
                tally.add(kind, outcome, sent)
    line.close()
    return tally


def one_connection(url: str, sent: bytes, *, patience_s: float) -> list[str]:
    """The statuses that came back on a connection of its own within `patience_s` of silence."""
    received = b""
    with _connect(url) as connection:
        with suppress(OSError):  # the server may close while we send
            connection.sendall(sent)
        connection.settimeout(patience_s)
        with suppress(OSError):
            while chunk := connection.recv(65_536):
                received += chunk
                if not sent.count(b"HTTP/1.") > 1 and _is_whole(received):
                    break
    return [status.decode() for status in STATUS.findall(received)] or (["closed"] if received == b"" else ["not HTTP"])


class _Line:
    """A connection that is kept: whole requests, one answer each."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection: socket.socket | None = None

    def ask(self, sent: bytes) -> str:
        if self.connection is None:
            self.connection = _connect(self.url)
        received = b""
        try:
            self.connection.sendall(sent)
            while not _is_whole(received):
                chunk = self.connection.recv(65_536)
                if not chunk:
                    break
                received += chunk
        except OSError:
            received = b""
        if not received or b"\r\nconnection: close\r\n" in received.lower():
            self.close()
        found = STATUS.match(received)
        return found[1].decode() if found else "closed"

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def _is_whole(received: bytes) -> bool:
    head, mark, body = received.partition(b"\r\n\r\n")
    length = LENGTH.search(head + b"\r\n")
    return bool(mark) and (length is None or len(body) >= int(length[1]))


class SlowClients(threading.Thread):
    """Connections that send a byte now and then; the server is to end each. `ended`: how many it did, `held_s`: the longest."""

    def __init__(self, url: str, count: int = 100) -> None:
        super().__init__(daemon=True)
        self.url, self.count, self.ended, self.held_s, self.over = url, count, 0, 0.0, threading.Event()

    def run(self) -> None:
        begun = [b"GET /livez HTTP/1.1\r\nx: ", b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n", b""]
        lines: dict[socket.socket, float] = {}
        while not self.over.wait(0.2):
            while len(lines) < self.count:
                connection = _connect(self.url)
                connection.setblocking(False)
                with suppress(OSError):
                    connection.send(begun[len(lines) % 3])
                lines[connection] = time.monotonic()
            for connection, since in list(lines.items()):
                if not _drip(connection):
                    self.ended += 1
                    self.held_s = max(self.held_s, time.monotonic() - since)
                    connection.close()
                    del lines[connection]
        for connection in lines:
            connection.close()


def _drip(connection: socket.socket) -> bool:
    """Send one more byte; whether the server still listens."""
    try:
        connection.send(b"a")
        return bool(connection.recv(1) == b"never")  # any byte, or the end, is the server's last word
    except BlockingIOError:
        return True
    except OSError:
        return False
