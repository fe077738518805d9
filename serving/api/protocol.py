"""Connections: limits that uvicorn does not have, and a shorter way to the app.

uvicorn's httptools protocol waits for the rest of a request's headers for ever (slowloris, CWE-400), and keeps headers of any
length. Here both end the connection, as does one connection too many. Requests go straight to our app: BentoML's own stack of
middlewares makes a task and a timer of 30 s for each request, and opens spans that nobody reads.

BentoML does not let a service choose uvicorn's protocol, so `install` puts ours in uvicorn's table of protocols; worker
processes import the service before they make their server.
"""

import os
from asyncio import TimerHandle, Transport
from typing import Any, cast

import uvicorn.config
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.settings import Settings

REFUSAL = b'{"error": "%s"}'
ANSWER = (
    b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\ncontent-length: %d\r\n"
    b"%sconnection: close\r\n\r\n%s"
)


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `connect` sets `front` and `settings`."""

    front: ASGIApp
    settings: Settings

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app = cast(Any, type(self).front)
        self._header_bytes = 0
        self._header_timer: TimerHandle | None = None
        self._in_headers = True

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.settings.max_connections:
            transport.write(_answer(503, b"Service Unavailable", b"too many connections are open: try again in a second"))
            transport.close()
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_timer is None:
                self._await_headers()
        super().data_received(data)
        if self._in_headers and self._header_bytes > self.settings.max_header_bytes:
            self._too_long()

    def on_headers_complete(self) -> None:
        self._headers_came()
        self._in_headers = False
        most = self.settings.max_header_bytes
        if self._header_bytes > most and len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > most:
            self._too_long()
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers, self._header_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        self._end(400, b"Bad Request", b"this is not HTTP/1.1: send a request line, headers, and a body as long as they say")

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.settings.header_timeout_s, self._headers_late)

    def _headers_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_long(self) -> None:
        self._end(431, b"Request Header Fields Too Large", b"request line and headers are too long: shorten them")

    def _headers_late(self) -> None:
        self._end(408, b"Request Timeout", b"the headers did not arrive in time: send them faster")

    def _end(self, status: int, phrase: bytes, sentence: bytes) -> None:
        self._headers_came()
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_answer(status, phrase, sentence))
            self.transport.close()


def install() -> None:
    """To be called before uvicorn makes its server."""
    for name in ("auto", "httptools"):
        uvicorn.config.HTTP_PROTOCOLS[name] = f"{__name__}:{GuardedProtocol.__name__}"


def connect(app: ASGIApp, settings: Settings) -> None:
    """To be called before the first connection is accepted."""
    # Addresses that a reverse proxy on this machine (or on those of FORWARDED_ALLOW_IPS) puts into X-Forwarded-For count.
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
    GuardedProtocol.front, GuardedProtocol.settings = cast(Any, ProxyHeadersMiddleware(cast(Any, app), trusted)), settings


def _answer(status: int, phrase: bytes, sentence: bytes) -> bytes:
    body = REFUSAL % sentence
    return ANSWER % (status, phrase, len(body), b"retry-after: 1\r\n" if status == 503 else b"", body)
