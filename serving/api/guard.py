"""Who may ask what, and how often."""

import time
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from serving.api.keys import Key, Keys, Scope
from serving.api.limits import Limits
from serving.api.refused import RefusedError
from serving.settings import Settings

HOW = "send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"


class Guard:
    """Lets a request pass or raises RefusedError: 401, 403 or 429."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.live) if settings.keys else None
        self.limits = Limits(share=1 / settings.workers)

    def check(self, scope: Scope, headers: dict[bytes, bytes], client: tuple[str, int] | None) -> None:
        """`client`: address and port."""
        check_origin(headers)
        if self.keys is None:
            self._count_address(client)
            if scope == "admin":
                raise RefusedError(HTTPStatus.FORBIDDEN, "admin routes are closed: start the server with API keys to open them")
            return
        key = self._key(headers, client)
        if scope not in key.scopes:
            sentence = f"this key has the scope {', '.join(key.scopes)}: use a key with the scope {scope}"
            raise RefusedError(HTTPStatus.FORBIDDEN, sentence)
        per_s, per_day = key.requests_per_s, key.requests_per_day
        self.limits.take(
            f"key {key.name}", time.time(),
            requests_per_s=self.settings.requests_per_s if per_s is None else per_s,
            requests_per_day=self.settings.requests_per_day if per_day is None else per_day,
        )  # fmt: skip

    def _key(self, headers: dict[bytes, bytes], client: tuple[str, int] | None) -> Key:
        assert self.keys is not None
        token = _token(headers)
        if token is not None and (key := self.keys.find(token)) is not None:
            return key
        self._count_address(client)  # guesses are limited, too
        sentence = f"an API key is needed: {HOW}" if token is None else f"this API key is not valid (any more): {HOW}"
        raise RefusedError(HTTPStatus.UNAUTHORIZED, sentence, www_authenticate="Bearer")

    def _count_address(self, client: tuple[str, int] | None) -> None:
        if self.settings.requests_per_s or self.settings.requests_per_day:
            self.limits.take(
                _network(client), time.time(),
                requests_per_s=self.settings.requests_per_s, requests_per_day=self.settings.requests_per_day,
            )  # fmt: skip


def check_origin(headers: dict[bytes, bytes]) -> None:
    """Refuse what a page of another site sends through its reader's browser, which may reach a server that we cannot see.

    Browsers name the page's site in Origin (https://www.rfc-editor.org/rfc/rfc6454); other programs send none.
    """
    origin = headers.get(b"origin")
    if origin is None:
        return
    try:
        site = urlsplit(origin.decode("latin-1")).netloc
    except ValueError:
        site = ""
    if site.encode("latin-1") != headers.get(b"host", b""):
        raise RefusedError(
            HTTPStatus.FORBIDDEN, "a page of another site sent this: ask from the server's own page or from a program"
        )


def _token(headers: dict[bytes, bytes]) -> bytes | None:
    given = headers.get(b"authorization")
    if given is not None and given[:7].lower() == b"bearer ":
        return given[7:].strip()
    return headers.get(b"x-api-key")


def _network(client: tuple[str, int] | None) -> str:
    """An address; of IPv6 the 64 bits that one customer gets, since they have all others of these at will."""
    host = client[0] if client else ""
    try:
        address = ip_address(host.split("%")[0])
    except ValueError:
        return f"address {host}"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"network {int(address) >> 64:x}"
    return f"address {host}"
