"""What every store must do, the embedded one and Redis alike; then what is particular to one."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis_server import Server, redis_server, running_redis

from recsys.errors import InputError
from serving.settings import Settings
from serving.state import store as bounds
from serving.state.open import open_store
from serving.state.redis import RedisStore
from serving.state.sqlite import SQLiteStore
from serving.state.store import Live, LiveEvent, Mark, Store, StoreDownError

__all__ = ["redis_server", "running_redis"]
Run = Callable[[Callable[[Store], Awaitable[Any]]], Any]


def event(id: str, time_ms: int = 1000, item: str = "i1", kind: str = "click", received_ms: int | None = None) -> LiveEvent:
    return LiveEvent(id, item, kind, time_ms, None, int(time.time() * 1000) if received_ms is None else received_ms)


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Store]:
    """Opens the store; a second call opens the same one again, as another process would."""
    if request.param == "sqlite":
        return lambda **options: SQLiteStore(tmp_path / "live" / "state.db", **options)
    server = request.getfixturevalue("redis_server")
    return lambda **options: RedisStore(server.url, **({"timeout_s": 1} | options))


@pytest.fixture
def run(make: Callable[..., Store]) -> Callable[..., Any]:
    """Runs a coroutine function over a new store."""

    def run(work: Callable[[Store], Awaitable[Any]], **options: Any) -> Any:
        async def main() -> Any:
            store = make(**options)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(main())

    return run


def test_events_come_back_by_time_then_id_as_they_were_given(run: Run) -> None:
    given = [
        LiveEvent("b", "ïtem \n\x00 2", "like", 2000, "r-1", 5000),
        LiveEvent("a", "i1", "click", 2000, None, 5000),
        LiveEvent("c", '"quoted"', "click", 1000, None, 2**53),
    ]

    async def work(store: Store) -> tuple[list[bool], Live, Live]:
        added = await store.add([("u\n1", each) for each in given])
        return added, await store.recent("u\n1"), await store.recent("u")

    added, live, other = run(work, ttl_s=10**9)
    assert added == [True, True, True]
    assert live.events == (given[2], given[1], given[0])
    assert live.forgotten_ms is None
    assert other == Live()


def test_an_id_counts_once_for_each_user(run: Run) -> None:
    async def work(store: Store) -> Any:
        first = await store.add([("u1", event("e")), ("u1", event("e", 2000)), ("u2", event("e"))])
        again = await store.add([("u1", event("e", 3000, "i2")), ("u1", event("f"))])
        return first, again, await store.known([("u1", "e"), ("u1", "g"), ("u2", "f")]), await store.recent("u1")

    first, again, known, live = run(work)
    assert (first, again, known) == ([True, False, True], [False, True], [True, False, False])
    assert [(each.id, each.time_ms, each.item_id) for each in live.events] == [("e", 1000, "i1"), ("f", 1000, "i1")]


def test_the_very_same_event_may_be_applied_again(run: Run) -> None:
    async def work(store: Store) -> Any:
        same = [("u1", LiveEvent("e", "i1", "click", 1000, "r", 5000))]
        return await store.add(same), await store.add(same), len((await store.recent("u1")).events)

    assert run(work, ttl_s=10**10) == ([True], [True], 1)


def test_the_newest_are_kept_and_ids_of_trimmed_events_still_count(run: Run) -> None:
    async def work(store: Store) -> Any:
        added = await store.add([("u1", event(f"e{number}", 1000 + number)) for number in range(10)])
        again = await store.add([("u1", event("e0", 5000)), ("u1", event("old", 1))])
        return added, again, await store.known([("u1", "e3"), ("u1", "old")]), await store.recent("u1")

    added, again, known, live = run(work, max_events=3)
    assert (added, again, known) == ([True] * 10, [False, True], [True, True])
    assert [each.id for each in live.events] == ["e7", "e8", "e9"]


def test_ids_of_trimmed_events_are_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sqlite", "redis"):
        monkeypatch.setattr(f"serving.state.{module}.GONE_MAX", 5)

    async def work(store: Store) -> list[bool]:
        for number in range(20):
            await store.add([("u1", event(f"e{number:02}", 1000 + number))])
            await asyncio.sleep(0.002)
        return await store.known([("u1", f"e{number:02}") for number in range(20)])

    assert run(work, max_events=2) == [False] * 13 + [True] * 7


def test_a_user_is_kept_for_so_long_after_the_last_event(run: Run) -> None:
    async def work(store: Store) -> Any:
        await store.add([("u1", event("a", 1000)), ("u2", event("b"))])
        await asyncio.sleep(0.6)
        await store.add([("u1", event("c", 2000))])
        await asyncio.sleep(0.6)
        before = [[each.id for each in (await store.recent(user)).events] for user in ("u1", "u2")]
        again = await store.add([("u2", event("d"))])
        return before, again, [each.id for each in (await store.recent("u2")).events]

    assert run(work, ttl_s=1) == ([["a", "c"], []], [True], ["d"])


def test_an_event_received_before_the_time_to_live_began_is_over_already(run: Run) -> None:
    async def work(store: Store) -> Live:
        await store.add([("u1", event("a", received_ms=int(time.time() * 1000) - 60_000))])
        await asyncio.sleep(0.01)
        return await store.recent("u1")

    assert run(work, ttl_s=10).events == ()


def test_what_came_before_a_user_was_forgotten_does_not_count_in_whatever_order(run: Run) -> None:
    async def work(store: Store) -> Any:
        deleted = await store.add([("u1", event("a", 1000, received_ms=1500)), ("u2", event("a", 1000))])
        deleted = await store.forget("u1", 2000)
        late = [
            event("b", 1999, received_ms=3000),  # happened before
            event("c", 2500, received_ms=2000),  # was received before: the journal is applied in any order
            event("d", 2500, received_ms=2001),
        ]
        added = await store.add([("u1", each) for each in late])
        nothing = await store.forget("u1", 1000)
        return deleted, added, nothing, await store.recent("u1"), await store.recent("u2")

    deleted, added, nothing, live, other = run(work, ttl_s=10**10)
    assert (deleted, added, nothing) == (1, [False, False, True], 0)
    assert ([each.id for each in live.events], live.forgotten_ms) == (["d"], 2000)
    assert ([each.id for each in other.events], other.forgotten_ms) == (["a"], None)


def test_marks_are_kept_with_the_writes_and_never_go_back(run: Run) -> None:
    async def work(store: Store) -> Any:
        fresh = await store.marks("j"), (await store.recent("u1", "j")).whole
        await store.add([("u1", event("a"))], Mark("j", "one", 0, 100))
        await store.add([("u1", event("b"))], Mark("j", "one", 0, 50))
        await store.add([("u1", event("c"))], Mark("j", "three", 10, 20))  # what stood before was never applied
        await store.forget("u2", 1, Mark("j", "two", 0, 7))
        begun = await store.marks("j"), (await store.recent("u1", "j")).whole
        lost = await store.mark_whole("j", {"one": 101, "two": 7}), await store.mark_whole("j", {"three": 20})
        still = await store.marks("j")
        assert (lost, still) == ((False, False), begun[0])
        assert await store.mark_whole("j", {"one": 100, "two": 6})
        done = await store.marks("j"), (await store.recent("u1", "j")).whole, (await store.recent("u1", "other")).whole
        return fresh, begun, done

    fresh, begun, done = run(work)
    assert fresh == (({}, False), False)
    assert begun == (({"one": 100, "two": 7}, False), False)
    assert done == (({"one": 100, "two": 7}, True), True, False)


def test_another_process_sees_it_and_many_at_once_lose_nothing(make: Callable[..., Store]) -> None:
    async def work() -> Any:
        stores, now_ms = [make(max_events=1000) for _ in range(3)], int(time.time() * 1000)
        posts = [
            stores[number % 3].add([("u1", event(f"e{number % 100}", number % 100, received_ms=now_ms + number))])
            for number in range(300)
        ]
        added = [new for post in await asyncio.gather(*posts) for new in post]
        found = [await store.recent("u1") for store in stores]
        for store in stores:
            await store.close()
        return added, found

    added, found = asyncio.run(work())
    assert sum(added) == 100
    assert [each.id for each in found[0].events] == [f"e{number}" for number in range(100)]
    assert found[0] == found[1] == found[2]


def test_a_large_post_is_kept_whole(run: Run) -> None:
    async def work(store: Store) -> Any:
        events = [(f"u{number % 7}", event(f"e{number}", number)) for number in range(1000)]
        return await store.add(events), [len((await store.recent(f"u{number}")).events) for number in range(7)]

    added, counts = run(work)
    assert sum(added) == sum(counts) == 1000


# SQLite


def test_a_full_disk_keeps_nothing_of_a_post(tmp_path: Path) -> None:
    async def work() -> None:
        store = SQLiteStore(tmp_path / "state.db")
        await store.add([("u1", event("a"))])
        pages = store._writer.execute("pragma page_count").fetchone()[0]
        store._writer.execute(f"pragma max_page_count = {pages}")
        big = [("u1", event(f"b{number}", item="x" * 1000)) for number in range(500)]
        with pytest.raises(StoreDownError, match="database or disk is full"):
            await store.add(big)
        assert [each.id for each in (await store.recent("u1")).events] == ["a"]
        store._writer.execute("pragma max_page_count = 1000000")
        assert sum(await store.add(big)) == 500
        await store.close()

    asyncio.run(work())


@pytest.mark.parametrize("damage", ["text", "format"])
def test_a_file_that_is_no_state_is_named_with_the_mend(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    if damage == "text":
        path.write_text("no database " * 1000)
    else:
        with sqlite3.connect(path) as db:
            db.execute("pragma user_version = 99")
        db.close()
    with pytest.raises(InputError, match=r"state\.db cannot be used .*: delete it, and it is made again from the journal"):
        SQLiteStore(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be opened for writing"):
        SQLiteStore(tmp_path / "file" / "state.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(InputError, match="cannot be opened for writing"):
        SQLiteStore(tmp_path / "folder.db")


def test_what_a_killed_process_committed_is_there(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, signal
from pathlib import Path
from serving.state.sqlite import SQLiteStore
from serving.state.store import LiveEvent
async def main():
    store = SQLiteStore(Path({str(tmp_path)!r}) / "state.db")
    for number in range(50):
        await store.add([("u1", LiveEvent(str(number), "i", "click", number))])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL

    async def count() -> int:
        store = SQLiteStore(tmp_path / "state.db")
        found = len((await store.recent("u1")).events)
        await store.close()
        return found

    assert asyncio.run(count()) == 50


# Redis


async def down(store: RedisStore) -> float:
    """Seconds until the store says that it is away."""
    began = time.monotonic()
    with pytest.raises(StoreDownError):
        await store.recent("u1")
    return time.monotonic() - began


def test_a_server_that_is_away_or_hangs_is_given_up_at_once_and_asked_again(redis_server: Server) -> None:
    async def work() -> None:
        store = RedisStore(redis_server.url, timeout_s=0.1)
        await store.add([("u1", event("a"))])
        redis_server.send(signal.SIGSTOP)
        assert await down(store) < 0.3
        assert await down(store) < 0.01  # not asked again
        redis_server.send(signal.SIGCONT)
        await asyncio.sleep(1.1)
        assert len((await store.recent("u1")).events) == 1
        redis_server.kill()
        assert await down(store) < 0.3
        redis_server.start()
        await asyncio.sleep(1.1)
        assert await store.recent("u1") == Live()
        assert await store.add([("u1", event("a"))]) == [True]
        await store.close()

    asyncio.run(work())


def test_a_reader_that_stops_waiting_leaves_no_answer_behind_for_the_next(redis_server: Server) -> None:
    async def work() -> None:
        store = RedisStore(redis_server.url, timeout_s=1)
        await store.add([(f"u{number}", event(f"e{number}")) for number in range(50)])
        cancelled = 0
        for number in range(50):
            reader = asyncio.create_task(store.recent("u7"))
            for _ in range(number % 3):  # at whatever point it may be
                await asyncio.sleep(0)
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            cancelled += reader.cancelled()
            assert [each.id for each in (await store.recent(f"u{number}")).events] == [f"e{number}"]
        assert cancelled > 15
        await store.close()

    asyncio.run(work())


def test_a_full_server_refuses_the_whole_post(redis_server: Server) -> None:
    async def work() -> None:
        store = RedisStore(redis_server.url, timeout_s=1)
        await store.add([("u1", event("a"))])
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreDownError):
            await store.add([("u1", event("b")), ("u2", event("c"))])
        redis_server.ask("CONFIG", "SET", "maxmemory", "0")
        await asyncio.sleep(1.1)
        assert [each.id for each in (await store.recent("u1")).events] == ["a"]
        assert (await store.recent("u2")).events == ()
        await store.close()

    asyncio.run(work())


@pytest.mark.parametrize("url", ["redis://:s3cret@127.0.0.1:1/0", "redis://:s3cret@127.0.0.1:x/0", "nosql://:s3cret@host"])
def test_a_password_is_in_no_message(tmp_path: Path, url: str) -> None:
    async def work() -> str:
        store = open_store(Settings(live=tmp_path, state=url))
        try:
            await store.ping()
        finally:
            await store.close()
        return "answered"

    with pytest.raises((InputError, StoreDownError)) as caught:
        asyncio.run(work())
    told = [str(caught.value), repr(caught.value.__cause__), str(caught.value.__suppress_context__)]
    assert "s3cret" not in " ".join(told)


def test_the_settings_name_the_store(tmp_path: Path, redis_server: Server) -> None:
    async def kinds() -> list[type]:
        stores = [open_store(Settings(live=tmp_path, state=name)) for name in ("sqlite", redis_server.url)]
        for store in stores:
            await store.ping()
            await store.close()
        return [type(store) for store in stores]

    assert asyncio.run(kinds()) == [SQLiteStore, RedisStore]
    assert bounds.GONE_KEPT_MS == 86_400_000
    assert os.path.exists(tmp_path / "state.db")
