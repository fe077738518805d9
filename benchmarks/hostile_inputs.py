"""Requests that nobody should send: broken JSON, wrong types, abused headers, bodies that lie, random bytes.

Everything follows from a random generator, so that a request that did harm can be made again.
"""

import json
import random
from collections.abc import Callable
from urllib.parse import quote

VALID: dict[str, dict[str, object]] = {
    "/recommend": {
        "user_id": "u1",
        "k": 5,
        "exclude": ["i1"],
        "allow": None,
        "context": {},
        "explain": True,
        "filter_seen": False,
    },
    "/rank": {"history": ["i1", "i2"], "items": ["i1", "i2", "gone"], "time_ms": 1_700_000_000_000},
    "/similar": {"item_id": "i1", "k": 5, "exclude": []},
    "/events": {"events": [{"id": "e1", "user_id": "u1", "item_id": "i1", "event": "click", "time_ms": 1_700_000_000_000}]},
    "/admin/canary": {"version": "5c1ffa0c7a3b9d20", "share": 0.5},
}
# As JSON text, since Python's json cannot write all of them.
SCALARS = (
    "null", "true", "0", "-1", "1e308", "1e999", "-1e999", "9" * 400, "0." + "1" * 400, "NaN", "Infinity", "-0", "01", "0x10",
    '""', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\x"', '"' + "a" * 1001 + '"', '"' + "\U0001f99c" * 300 + '"',
    '"\u202e\u200b"', '"../../etc/passwd"', '"\'; drop table events; --"', '"${jndi:ldap://x}"', '"__proto__"', "[]", "{}",
    "[[]]", '{"": {}}', "[" * 200 + "]" * 200, '{"a":' * 150 + "1" + "}" * 150, "[" + "1," * 3000 + "1]",
    "[" + '"i",' * 12_000 + '"i"]',
)  # fmt: skip
PATHS = (
    "/", "//", "/.", "/..", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/..%2f..%2fsettings.py",
    "/page/%5c..%5cx", "/users/", "/users/%00", "/users/%ff", "/users/a%2Fb", "/users/" + "a" * 5000,
    "/users/" + quote("\U0001f99c" * 900), "/RECOMMEND", "/recommend/", "/recommend;x=1", "/recommend%00",
    "/recommend?" + "q=1&" * 3000, "/admin/../recommend", "/admin%2frollback", "/metrics?name[]=x", "/docs.json", "/info",
    "/healthz#x", "/schema.json", "/static_content/../x", "*", "http://evil.example/recommend",
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "P\u00d6ST", "")
HEADERS = (
    "content-type: text/plain", "content-type: application/json; charset=utf-16",
    "content-type: application/x-www-form-urlencoded", "content-type: application/vnd.bentoml+pickle",
    "content-encoding: gzip", "transfer-encoding: gzip, chunked", "expect: 100-continue", "expect: nonsense",
    "authorization: Bearer " + "x" * 3000, "authorization: \x01", "x-api-key: \u00ff", "origin: null",
    "origin: http://evil.example", "upgrade: websocket\r\nconnection: upgrade", "upgrade: h2c\r\nconnection: upgrade",
    "host: ", "host: a\r\nhost: b", "content-length: -1", "content-length: 99999999999999999999",
    "content-length: 5\r\ncontent-length: 6", "x-forwarded-for: " + "1.2.3.4, " * 200, "x-forwarded-for: not an address",
    "cookie: " + "a=b; " * 4000, "range: bytes=0-0,-1", "no colon", " folded: x", "x: " + "\t" * 100, "if-none-match: *",
    "accept: application/xml", "te: trailers", "x" * 40_000 + ": y", "\r\n".join(f"x-{number}: y" for number in range(3000)),
)  # fmt: skip


def mutated_json(rng: random.Random) -> tuple[str, bytes]:
    """A path and a body that was valid before one to three of its places got something else."""
    path = rng.choices(list(VALID), [4, 3, 3, 4, 1])[0]
    text = json.dumps(VALID[path], ensure_ascii=False)
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = _places(text)
        values = [(start, end) for start, end in places if not text[end:].lstrip().startswith(":")]
        start, end = rng.choice(values if values and rng.random() < 0.85 else places)
        text = text[:start] + rng.choice(SCALARS) + text[end:]
    body = text.encode("utf-8", "surrogatepass")
    return path, body if rng.random() < 0.85 else _damaged(rng, body)


def _places(text: str) -> list[tuple[int, int]]:
    """Where numbers, words and strings stand (keys too), as the mutations left them."""
    places, start = [], 0
    for position, letter in enumerate(text[:5000]):
        if letter in "[]{}:, ":
            if position > start:
                places.append((start, position))
            start = position + 1
    return places or [(0, len(text))]


def _damaged(rng: random.Random, body: bytes) -> bytes:
    place = rng.randrange(len(body) + 1)
    match rng.randrange(5):
        case 0:
            return body[:place]
        case 1:
            return body[:place] + rng.randbytes(rng.randint(1, 30)) + body[place:]
        case 2:
            return body + body
        case 3:
            return b"\xef\xbb\xbf" + body
        case _:
            return body.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32", "latin-1"]), "replace")


def _post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def wrong_requests(rng: random.Random) -> bytes:
    """Any method at any path, with any header."""
    path, body = mutated_json(rng)
    path = rng.choice([path, *PATHS]) if rng.random() < 0.7 else path
    lines = [f"{rng.choice(METHODS)} {path} HTTP/1.{rng.choice('1110')}", "host: x"]
    lines += rng.sample(HEADERS, rng.randint(0, 2))
    if rng.random() < 0.5:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def lying_lengths(rng: random.Random) -> bytes:
    path, body = mutated_json(rng)
    return _post(path, body, length=rng.choice([0, 1, len(body) // 2, len(body) + 1, 10**9, 2**63, 2**64]))


def chunked(rng: random.Random) -> bytes:
    """Chunks whose sizes are right, wrong, huge, or no numbers; trailers; no end."""
    path, body = mutated_json(rng)
    lines = [f"POST {path} HTTP/1.1", "host: x", "transfer-encoding: chunked"]
    if rng.random() < 0.2:
        lines.append(f"content-length: {len(body)}")  # both: how requests are smuggled
    sizes = [f"{len(body):x}", f"{len(body) + 5:x}", "0", "-1", "g", "ffffffffffffffffff", f"{len(body):x};x=y", " 5 ", ""]
    end = rng.choice([b"\r\n0\r\n\r\n", b"\r\n0\r\nx: y\r\n\r\n", b"", b"0"])
    return "\r\n".join([*lines, "", ""]).encode() + rng.choice([sizes[0], *sizes]).encode() + b"\r\n" + body + end


def large_bodies(rng: random.Random) -> bytes:
    body = rng.choice([b" ", b"[", b'{"a":', b'"', b"9"]) * rng.choice([200_000, 1_000_000])
    return _post(rng.choice(list(VALID)), body[: rng.choice([500_000, 1_000_001, 3_000_000])])


def pipelined(rng: random.Random) -> bytes:
    return b"".join(_post(*mutated_json(rng)) for _ in range(rng.randint(2, 8)))


def random_bytes(rng: random.Random) -> bytes:
    return rng.choice(
        [b"", b"GET ", b"POST /recommend HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    ) + rng.randbytes(rng.randint(0, 400))


# Kind -> (how often in a hundred; what goes over the socket).
ATTACKS: dict[str, tuple[float, Callable[[random.Random], bytes]]] = {
    "mutated JSON": (78, lambda rng: _post(*mutated_json(rng))),
    "wrong method, path, header": (14, wrong_requests),
    "lying length": (1.5, lying_lengths),
    "chunked": (2, chunked),
    "large body": (0.2, large_bodies),
    "pipelined": (2, pipelined),
    "random bytes": (2.3, random_bytes),
}
