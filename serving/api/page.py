"""The page's files, read once at start: a request can name no other, whatever its path looks like."""

import base64
import hashlib
import mimetypes
import re
from http import HTTPStatus
from pathlib import Path

from serving.api.reply import Reply

PAGE = Path(__file__).parent.parent / "page"
INDEX = "index.html"
SUFFIXES = {".html", ".js", ".css", ".svg", ".png", ".ico", ".woff2"}
INLINE = {
    "script": re.compile(r"<script(?:\s[^>]*)?>(.*?)</script>", re.S),
    "style": re.compile(r"<style(?:\s[^>]*)?>(.*?)</style>", re.S),
}


class Page:
    """Path -> file: `/` is index.html, `/page/NAME` the others. Browsers ask each time, and get 304 where nothing changed."""

    def __init__(self, folder: Path = PAGE) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in SUFFIXES]
        index = folder / INDEX
        self._policy = _policy(index.read_text() if index.is_file() else "")
        self._replies = {self._path(folder, path): self._reply(path) for path in files}

    @property
    def paths(self) -> list[str]:
        return list(self._replies)

    def get(self, path: str, headers: dict[bytes, bytes]) -> Reply:
        reply = self._replies[path]
        tag = dict(reply.headers)[b"etag"]
        return Reply(b"", HTTPStatus.NOT_MODIFIED, reply.headers) if headers.get(b"if-none-match") == tag else reply

    @staticmethod
    def _path(folder: Path, path: Path) -> str:
        name = path.relative_to(folder).as_posix()
        return "/" if name == INDEX else f"/page/{name}"

    def _reply(self, path: Path) -> Reply:
        body = path.read_bytes()
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        charset = "; charset=utf-8" if media_type.startswith("text/") else ""
        headers = {
            "content-type": media_type + charset,
            "content-security-policy": self._policy,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cache-control": "no-cache",
            "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        }
        return Reply(body, headers=tuple((name.encode(), value.encode()) for name, value in headers.items()))


def _policy(html: str) -> str:
    """Scripts and styles of this server alone, and the inline blocks of this very page by their hashes.

    Content Security Policy Level 3, https://www.w3.org/TR/CSP3/.
    """
    allowed = {
        kind: " ".join(["'self'", *(f"'sha256-{_digest(block)}'" for block in pattern.findall(html) if block.strip())])
        for kind, pattern in INLINE.items()
    }
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
