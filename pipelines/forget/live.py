"""A server's own data without some users: its state is told to forget them, and their lines in its journal are blanked.

A line becomes as many blanks. So the files keep their length: the marks of how far the state has applied them stay true, a
server that runs goes on writing, and readers skip the lines.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from recsys.errors import InputError
from serving.client import Client
from serving.journal.journal import FORGOTTEN, ID_FILE, Journal
from serving.journal.records import forgotten_of
from serving.settings import Settings
from serving.state.open import STATE_FILE, open_store

JOURNAL = "journal"


def forget_at(url: str, users: Collection[str], *, api_key: str | None = None) -> int:
    """Ask a running server to forget; how many events its state deleted. Raises InputError, ServerError."""
    client = Client(url, api_key=api_key)
    try:
        return sum(client.forget(user).events for user in users)
    finally:
        client.close()


def forget_in(live: Path, users: Collection[str], *, since_ms: int = 0) -> int:
    """The same without a server: in its journal and its SQLite state; how many events were deleted. Whom the journal names
    since then already, as a run that was killed leaves it, is not named again. Raises InputError."""
    if not (live / JOURNAL / ID_FILE).is_file() and not (live / STATE_FILE).is_file():
        raise InputError(f"{live} holds neither a journal nor a state: name the folder `live` of the server's settings")
    now_ms = int(time.time() * 1000)
    if (live / JOURNAL).is_dir():
        journal = Journal(live / JOURNAL)
        already = _told(live / JOURNAL, since_ms)
        for user in users:
            if user not in already:
                journal.forgotten(user, now_ms)
        journal.close()
    return asyncio.run(_forget_in_state(live, users, now_ms)) if (live / STATE_FILE).is_file() else 0


def blank(live: Path, users: Collection[str]) -> int:
    """Blank the users' lines in all files of the journal but those that say whom to forget; how many lines there were."""
    chosen, blanked = set(users), 0
    for path in sorted((live / JOURNAL).glob("**/*.ndjson")):
        if not path.name.endswith(FORGOTTEN):
            blanked += blank_lines(path, lambda _, line: _user(line) in chosen)
    return blanked


def _told(journal: Path, since_ms: int) -> set[str]:
    lines = (line for path in journal.glob(f"events/day=*/*{FORGOTTEN}") for line in path.read_bytes().splitlines())
    return {told[0] for line in lines if (told := forgotten_of(line)) and told[1] >= since_ms}


def blank_lines(path: Path, gone: Callable[[int, bytes], bool]) -> int:
    """Blank lines in place; how many there were. `gone` is asked about those that are not blank yet, by number and content."""
    blanked = place = number = 0
    with path.open("r+b") as file:
        for line in file:
            if line.strip():
                if line.endswith(b"\n") and gone(number, line):
                    os.pwrite(file.fileno(), b" " * (len(line) - 1), place)
                    blanked += 1
                number += 1
            place += len(line)
        if blanked:
            os.fsync(file.fileno())
    return blanked


def _user(line: bytes) -> str | None:
    try:
        found = json.loads(line)
        return str(found["user_id"]) if found["user_id"] is not None else None
    except (ValueError, KeyError, TypeError):
        return None


async def _forget_in_state(live: Path, users: Collection[str], now_ms: int) -> int:
    store = open_store(Settings(live=live))
    try:
        return sum([await store.forget(user, now_ms) for user in users])
    finally:
        await store.close()
