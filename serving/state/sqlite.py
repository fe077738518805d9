"""The embedded store: one SQLite file that all worker processes of a server share.

Reads run where they are called, since in WAL mode they wait for no writer (~30 microseconds); writes run in a thread of their
own, since they may wait for another process and for the disk.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from recsys.errors import InputError
from serving.state.store import GONE_KEPT_MS, GONE_MAX, Live, LiveEvent, Mark, StoreDownError

FORMAT_VERSION = 1
BUSY_MS = 2_000  # how long a write waits for those of other processes
PURGE_S = 60  # how often users are looked for whose time is over, ids whose event is long gone
PURGED = 1_000  # at most so many at a time
SCHEMA = """
create table if not exists events (
  user text, time_ms int, id text, item text, event text, request text, received_ms int, primary key (user, time_ms, id)
) without rowid;
create unique index if not exists event_ids on events (user, id);
create table if not exists gone (user text, id text, at_ms int, primary key (user, id)) without rowid;
create index if not exists gone_at on gone (at_ms);
create table if not exists users (user text primary key, until_ms int) without rowid;
create index if not exists users_until on users (until_ms);
create table if not exists forgotten (user text primary key, time_ms int) without rowid;
create table if not exists marks (journal text, file text, "offset" int, primary key (journal, file)) without rowid;
"""
WHOLE = ""  # the file of the mark that says that the store is a whole view of its journal
RECENT = f"""
with known as (
  select (select time_ms from forgotten where user = :user) as forgotten_ms,
  exists (select 1 from marks where journal = :journal and file = '{WHOLE}') as whole
), recent as (
  select id, item, event, time_ms, request, received_ms from events
  where user = :user and (select until_ms from users where user = :user) > :now_ms
  order by time_ms desc, id desc limit :most
)
select * from known left join recent order by time_ms, id
"""  # one statement, one lock: at least one row, in which all but the first two are null where there is no event
Found = TypeVar("Found")


class SQLiteStore:
    def __init__(self, path: Path, *, max_events: int = 500, ttl_s: int = 30 * 86_400) -> None:
        """Raises InputError for a file that cannot be used."""
        self.max_events, self.ttl_ms = max_events, ttl_s * 1000
        self._purge_at = 0.0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reader, self._writer = _open(path), _open(path)
        except (sqlite3.Error, OSError) as error:
            raise InputError(_unusable(path, error)) from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")

    async def recent(self, user_id: str, journal: str | None = None) -> Live:
        return self._read(lambda: self._recent(user_id, journal))

    async def known(self, events: Sequence[tuple[str, str]]) -> list[bool]:
        return self._read(lambda: [self._known(*each) for each in events])

    async def add(self, events: Sequence[tuple[str, LiveEvent]], mark: Mark | None = None) -> list[bool]:
        return await self._write(lambda: self._add(events), mark)

    async def forget(self, user_id: str, now_ms: int, mark: Mark | None = None) -> int:
        return await self._write(lambda: self._forget(user_id, now_ms), mark)

    async def marks(self, journal: str) -> tuple[dict[str, int], bool]:
        rows = self._read(
            lambda: self._reader.execute('select file, "offset" from marks where journal = ?', (journal,)).fetchall()
        )
        found = dict(rows)
        return found, found.pop(WHOLE, None) is not None

    async def mark_whole(self, journal: str, applied: Mapping[str, int]) -> bool:
        return await self._write(lambda: self._mark_whole(journal, applied), None)

    async def ping(self) -> None:
        self._read(lambda: self._reader.execute("select 1 from users limit 1").fetchone())

    async def close(self) -> None:
        self._thread.shutdown()
        self._reader.close()
        self._writer.close()

    def _read(self, query: Callable[[], Found]) -> Found:
        try:
            return query()
        except sqlite3.Error as error:
            raise StoreDownError(f"the state cannot be read: {error}") from error

    async def _write(self, change: Callable[[], Found], mark: Mark | None) -> Found:
        """One transaction. A caller who stops waiting leaves it whole."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, change, mark)
        except (sqlite3.Error, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise StoreDownError(f"the state cannot be written: {error}") from error

    def _transaction(self, change: Callable[[], Found], mark: Mark | None) -> Found:
        self._writer.execute("begin immediate")
        try:
            found = change()
            if mark is not None:
                self._advance(mark)
            self._purge()
            self._writer.execute("commit")
        except BaseException:
            if self._writer.in_transaction:  # SQLite has rolled back by itself where the disk is full
                self._writer.execute("rollback")
            raise
        return found

    def _recent(self, user_id: str, journal: str | None) -> Live:
        asked = {"user": user_id, "journal": journal, "now_ms": _now_ms(), "most": self.max_events}
        rows = self._reader.execute(RECENT, asked).fetchall()
        forgotten_ms, is_whole = rows[0][:2]
        events = tuple(LiveEvent(*row[2:]) for row in rows if row[2] is not None)
        return Live(events, forgotten_ms, journal is None or bool(is_whole))

    def _known(self, user: str, id: str) -> bool:
        either = "select 1 from events where user = ? and id = ? union all select 1 from gone where user = ? and id = ?"
        return self._reader.execute(either, (user, id, user, id)).fetchone() is not None

    def _add(self, events: Sequence[tuple[str, LiveEvent]]) -> list[bool]:
        now_ms = _now_ms()
        for user in {user for user, _ in events}:
            self._drop("user = ? and until_ms <= ?", (user, now_ms))
        added = [self._add_one(user, each) for user, each in events]
        for user in {user for (user, _), is_new in zip(events, added, strict=True) if is_new}:
            received_ms = max(min(each.received_ms, now_ms) for whose, each in events if whose == user)
            self._writer.execute(
                "insert into users values (?, ?) on conflict do update set until_ms = max(until_ms, excluded.until_ms)",
                (user, received_ms + self.ttl_ms),
            )
            self._trim(user, now_ms)
        return added

    def _add_one(self, user: str, each: LiveEvent) -> bool:
        do = self._writer.execute
        forgotten = do("select time_ms from forgotten where user = ?", (user,)).fetchone()
        if forgotten and min(each.time_ms, each.received_ms) <= forgotten[0]:
            return False
        if do("select 1 from gone where user = ? and id = ?", (user, each.id)).fetchone():
            return False
        row = (user, each.time_ms, each.id, each.item_id, each.event, each.request_id, each.received_ms)
        if do("insert or ignore into events values (?, ?, ?, ?, ?, ?, ?)", row).rowcount == 1:
            return True
        return do("select * from events where user = ? and time_ms = ? and id = ?", row[:3]).fetchone() == row

    def _trim(self, user: str, now_ms: int) -> None:
        do = self._writer.execute
        oldest = "from events where user = ? order by time_ms desc, id desc limit -1 offset ?"
        over = do(f"select user, time_ms, id {oldest}", (user, self.max_events)).fetchall()
        if not over:
            return
        self._writer.executemany("delete from events where user = ? and time_ms = ? and id = ?", over)
        self._writer.executemany("insert or replace into gone values (?, ?, ?)", [(user, each[2], now_ms) for each in over])
        newest = "select id from gone where user = ? order by at_ms desc, id desc limit -1 offset ?"
        do(f"delete from gone where user = ? and id in ({newest})", (user, user, GONE_MAX))

    def _forget(self, user_id: str, now_ms: int) -> int:
        do = self._writer.execute
        further = "on conflict do update set time_ms = max(time_ms, excluded.time_ms)"
        do(f"insert into forgotten values (?, ?) {further}", (user_id, now_ms))
        do("delete from gone where user = ?", (user_id,))
        return do(
            "delete from events where user = ? and (time_ms <= ? or received_ms <= ?)", (user_id, now_ms, now_ms)
        ).rowcount

    def _advance(self, mark: Mark) -> None:
        found = self._writer.execute('select "offset" from marks where journal = ? and file = ?', mark[:2]).fetchone()
        before = found[0] if found else 0
        if mark.begin <= before < mark.offset:
            self._writer.execute("insert or replace into marks values (?, ?, ?)", (mark.journal, mark.file, mark.offset))

    def _mark_whole(self, journal: str, applied: Mapping[str, int]) -> bool:
        marks = dict(self._writer.execute('select file, "offset" from marks where journal = ?', (journal,)))
        is_whole = all(marks.get(file, 0) >= end for file, end in applied.items())
        if is_whole:
            self._advance(Mark(journal, WHOLE, 0, 1))
        return is_whole

    def _purge(self) -> None:
        """Now and then delete the users whose time is over, and the ids of events that were trimmed long ago."""
        if time.monotonic() < self._purge_at:
            return
        self._purge_at = time.monotonic() + PURGE_S
        do, now_ms = self._writer.execute, _now_ms()
        self._drop("until_ms <= ? limit ?", (now_ms, PURGED))
        old = do("select user, id from gone where at_ms < ? limit ?", (now_ms - GONE_KEPT_MS, PURGED)).fetchall()
        self._writer.executemany("delete from gone where user = ? and id = ?", old)

    def _drop(self, which: str, values: tuple[str | int, ...]) -> None:
        over = self._writer.execute(f"select user from users where {which}", values).fetchall()
        for table in ("events", "gone", "users"):
            self._writer.executemany(f"delete from {table} where user = ?", over)


def _open(path: Path) -> sqlite3.Connection:
    """A connection whose transactions begin where they are told to, from any thread."""
    db = sqlite3.connect(path, check_same_thread=False, timeout=BUSY_MS / 1000, isolation_level=None)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = normal")  # after a power cut the newest commits come again from the journal
    version = db.execute("pragma user_version").fetchone()[0]
    if version not in (0, FORMAT_VERSION):
        raise sqlite3.DatabaseError(f"it has format {version}, this code reads {FORMAT_VERSION}")
    db.executescript(f"begin immediate; {SCHEMA} pragma user_version = {FORMAT_VERSION}; commit;")
    return db


def _unusable(path: Path, error: Exception) -> str:
    if isinstance(error, sqlite3.OperationalError | OSError):
        return f"{path} cannot be opened for writing ({error}): make file and folder writable, or name another folder"
    return f"{path} cannot be used ({error}): delete it, and it is made again from the journal beside it"


def _now_ms() -> int:
    return int(time.time() * 1000)
