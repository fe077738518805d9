"""API keys: random 256-bit tokens, of which only SHA-256 hashes are kept, in `live`/keys.json.

A token has 256 random bits, so a fast hash without salt is enough: there is nothing to guess (unlike passwords; OWASP Password
Storage Cheat Sheet, https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html).
"""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from recsys.errors import InputError
from recsys.spec import Spec

logger = logging.getLogger("recsys.serving")

KEYS_FILE = "keys.json"
PREFIX = "rsk_"  # by which secret scanners and people know a key of recsys
MAX_KEYS = 200  # every one is compared at every request, 0.2 microseconds each
LOOK_AGAIN_S = 0.25  # a revoked key works this much longer
Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(Spec):
    name: str
    sha256: str = Field(min_length=64, max_length=64)
    scopes: tuple[Scope, ...]
    created: str
    requests_per_s: float | None = Field(None, ge=0, description="in place of the server's limit; 0: none")
    requests_per_day: int | None = Field(None, ge=0)


class KeyFile(Spec):
    keys: tuple[Key, ...] = ()


def read_keys(live: Path) -> tuple[Key, ...]:
    """None where there is no file. Raises InputError for one that cannot be read."""
    path = live / KEYS_FILE
    try:
        return KeyFile.model_validate_json(path.read_text()).keys
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise InputError(f"{path} cannot be read ({reason}): remove it and add the keys anew with `recsys keys add`") from error


def add_key(
    live: Path, name: str, scopes: Sequence[Scope], *, requests_per_s: float | None = None, requests_per_day: int | None = None
) -> str:
    """Add a key and return its token, which is nowhere else. Raises InputError."""
    if not NAME.fullmatch(name):
        raise InputError(f"name is {name!r}: use up to 64 letters, digits, dots, dashes and underscores")
    if not scopes:
        raise InputError(f"key {name!r} has no scope: name some of {', '.join(SCOPES)}")
    token = PREFIX + secrets.token_urlsafe(32)
    with _changing(live):
        keys = read_keys(live)
        if any(key.name == name for key in keys):
            raise InputError(f"there is a key {name!r}: revoke it first, or take another name")
        if len(keys) >= MAX_KEYS:
            raise InputError(f"there are {len(keys)} keys, no more fit: revoke some with `recsys keys revoke`")
        new = Key(
            name=name, sha256=_hash(token), scopes=tuple(dict.fromkeys(scopes)),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            requests_per_s=requests_per_s, requests_per_day=requests_per_day,
        )  # fmt: skip
        _write(live, (*keys, new))
    return token


def revoke_key(live: Path, name: str) -> None:
    """Raises InputError, naming the keys there are, for one that is not there."""
    with _changing(live):
        keys = read_keys(live)
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            names = ", ".join(key.name for key in keys) or "none"
            raise InputError(f"there is no key {name!r} in {live / KEYS_FILE}: the keys are {names}")
        _write(live, left)


class Keys:
    """The keys of a server, as its file says now. An unreadable file lets nobody in."""

    def __init__(self, live: Path) -> None:
        self.live = live
        self._keys: tuple[Key, ...] = ()
        self._seen: tuple[int, ...] | None = None
        self._next_look_s = 0.0

    def find(self, token: bytes) -> Key | None:
        """The key of a token. Takes as long for a wrong one, whatever it shares with a right one."""
        self._look()
        digest = hashlib.sha256(token).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_AGAIN_S
        try:
            found = (self.live / KEYS_FILE).stat()
            stamp: tuple[int, ...] = (found.st_mtime_ns, found.st_ino, found.st_size)
        except OSError:
            stamp = ()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = read_keys(self.live)
        except InputError as error:
            logger.error("no key is valid: %s", error)
            self._keys = ()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _write(live: Path, keys: tuple[Key, ...]) -> None:
    """All or nothing, and never readable by others, not even for a moment."""
    scratch = live / f".{KEYS_FILE}.{os.getpid()}"
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(KeyFile(keys=keys).model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(live / KEYS_FILE)


@contextmanager
def _changing(live: Path) -> Iterator[None]:
    """One change at a time, so that none is lost."""
    live.mkdir(parents=True, exist_ok=True)
    with (live / ".keys.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
