"""Journal and store together: what was acknowledged is in the state, whatever the store went through meanwhile."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis_server import Server, redis_server, running_redis

from recsys.errors import InputError
from serving.journal.journal import Journal
from serving.schema import Event
from serving.state import reconciler as module
from serving.state.reconciler import Reconciler
from serving.state.redis import RedisStore
from serving.state.sqlite import SQLiteStore
from serving.state.store import LiveEvent, Store, StoreDownError

__all__ = ["redis_server", "running_redis"]
TTL_S = 3600


@pytest.fixture(params=["sqlite", "redis"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    if request.param == "sqlite":
        return lambda: SQLiteStore(tmp_path / "state.db", ttl_s=TTL_S)
    server = request.getfixturevalue("redis_server")
    return lambda: RedisStore(server.url, ttl_s=TTL_S, timeout_s=1)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    monkeypatch.setattr(module, "CHECK_S", 0.1)


def click(number: int, user: str = "u1", **more: Any) -> Event:
    return Event(id=f"e{number}", user_id=user, item_id=f"i{number}", **{"time_ms": 1000 + number} | more)


def ids(live: Any) -> list[str]:
    return [each.id for each in live.events]


async def until(check: Callable[[], Any], timeout_s: float = 8) -> Any:
    """What `check` gives once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := await check()):
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.02)
    return found


def posted(folder: Path) -> list[str]:
    return [
        json.loads(line)["id"] for path in folder.glob("events/*/*.posted.ndjson") for line in path.read_text().splitlines()
    ]


def test_an_event_is_in_journal_and_state_once(open_store: Callable[[], Store], tmp_path: Path) -> None:
    async def main() -> Any:
        state = Reconciler(open_store(), Journal(tmp_path / "journal"), ttl_s=TTL_S)
        first = await state.add([click(1), click(2), click(1)])
        again = await state.add([click(2), click(3), click(1, user="u2")])
        live = await state.recent("u1")
        await state.close()
        return first, again, live

    first, again, live = asyncio.run(main())
    assert first == ([True, True, False], True)
    assert again == ([False, True, True], True)
    assert (ids(live), live.whole) == (["e1", "e2", "e3"], True)
    assert posted(tmp_path / "journal") == ["e1", "e2", "e3", "e1"]


def test_kinds_that_the_server_writes_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        state = Reconciler(SQLiteStore(tmp_path / "state.db"), Journal(tmp_path / "journal"), ttl_s=TTL_S)
        with pytest.raises(InputError, match="event is 'impression', a kind that only the server writes"):
            await state.add([click(1), click(2, event="impression")])
        await state.close()

    asyncio.run(main())
    assert posted(tmp_path / "journal") == []


def test_what_a_killed_process_wrote_to_its_journal_alone_is_applied(open_store: Callable[[], Store], tmp_path: Path) -> None:
    """Killed between journal and store, the second time with half a line."""

    def left_behind(numbers: list[int]) -> None:
        journal, now_ms = Journal(tmp_path / "journal"), int(time.time() * 1000)
        for number in numbers:
            each = click(number)
            place = journal.events(
                [("u1", LiveEvent(str(each.id), each.item_id, "click", 1000 + number, None, now_ms))], now_ms
            )
        if numbers:
            with (tmp_path / "journal" / place.file).open("ab") as file:
                file.write(b'{"id":"half')
        journal.close()

    async def main() -> list[Any]:
        found = []
        for numbers in ([1, 2], [3], []):
            left_behind(numbers)
            state = Reconciler(open_store(), Journal(tmp_path / "journal"), ttl_s=TTL_S)
            found.append(await state.recent("u1"))  # the first thing it is asked
            await state.close()
        return found

    found = asyncio.run(main())
    assert [(ids(live), live.whole) for live in found] == [
        (["e1", "e2"], True),
        (["e1", "e2", "e3"], True),
        (["e1", "e2", "e3"], True),
    ]


def test_a_store_that_comes_back_empty_is_made_anew(redis_server: Server, tmp_path: Path) -> None:
    """Events older than the time to live stay away, and so does what a user did before being forgotten."""

    async def main() -> Any:
        journal, now_ms = Journal(tmp_path / "journal"), int(time.time() * 1000)
        old = LiveEvent("old", "i0", "click", 1, None, now_ms - (TTL_S + 1) * 1000)
        journal.events([("u1", old)], now_ms)
        journal.close()
        state = Reconciler(RedisStore(redis_server.url, ttl_s=TTL_S, timeout_s=1), Journal(tmp_path / "journal"), ttl_s=TTL_S)
        for number in range(5):
            await state.add([click(number), click(number, user="u2")])
        gone = await state.forget("u2")
        await state.add([click(9, user="u2", time_ms=2**50)])
        redis_server.ask("FLUSHALL")
        first = await state.recent("u1")
        back = await until(lambda: whole(state, "u1"))
        other = await state.recent("u2")
        late = await state.add([click(10, user="u2")])
        await state.close()
        return gone, first, back, other, late

    gone, first, back, other, late = asyncio.run(main())
    assert gone == (5, True)
    assert not first.whole
    assert ids(back) == ["e0", "e1", "e2", "e3", "e4"]
    assert ids(other) == ["e9"]
    assert other.forgotten_ms is not None
    assert late == ([False], True)  # happened before


def test_a_post_to_a_store_that_came_back_empty_does_not_hide_what_it_lost(redis_server: Server, tmp_path: Path) -> None:
    async def main() -> Any:
        state = Reconciler(RedisStore(redis_server.url, ttl_s=TTL_S, timeout_s=1), Journal(tmp_path / "journal"), ttl_s=TTL_S)
        for number in range(3):
            await state.add([click(number)])
        redis_server.ask("FLUSHALL")
        await state.add([click(3)])  # before anybody noticed
        live = await until(lambda: whole(state, "u1"))
        await state.close()
        return live

    assert ids(asyncio.run(main())) == ["e0", "e1", "e2", "e3"]


async def whole(state: Reconciler, user: str) -> Any:
    live = await state.recent(user)
    return live if live.whole else None


def test_posts_go_on_while_redis_is_away_and_are_applied_when_it_is_back(redis_server: Server, tmp_path: Path) -> None:
    async def main() -> Any:
        state = Reconciler(RedisStore(redis_server.url, ttl_s=TTL_S), Journal(tmp_path / "journal"), ttl_s=TTL_S)
        await state.add([click(1), click(1, user="u2")])
        redis_server.kill()
        away = await state.add([click(2), click(3)]), await state.add([click(2)]), await state.forget("u2")
        meanwhile = await state.recent("u1"), await state.recent("u2")
        redis_server.start()
        back = await until(lambda: whole(state, "u1"))
        other = await state.recent("u2")
        again = await state.add([click(2), click(4)])
        await state.close()
        return away, meanwhile, back, other, again

    away, (live, forgotten), back, other, again = asyncio.run(main())
    assert away == (([True, True], False), ([False], True), (0, False))
    assert (ids(live), live.whole) == (["e2", "e3"], False)  # what this process knows of itself
    assert forgotten.forgotten_ms is not None
    assert ids(back) == ["e1", "e2", "e3"]
    assert (ids(other), other.whole) == ([], True)
    assert again == ([False, True], True)
    assert posted(tmp_path / "journal") == ["e1", "e1", "e2", "e3", "e4"]


def test_a_store_that_came_back_with_an_older_state_is_brought_up_to_date(redis_server: Server, tmp_path: Path) -> None:
    async def main() -> Any:
        state = Reconciler(RedisStore(redis_server.url, ttl_s=TTL_S, timeout_s=1), Journal(tmp_path / "journal"), ttl_s=TTL_S)
        await state.add([click(1)])
        await state.ready()
        redis_server.ask("SAVE")
        await state.add([click(2)])
        redis_server.kill()
        redis_server.start()
        found = await until(lambda: both(state))
        await state.close()
        return found

    async def both(state: Reconciler) -> Any:
        live = await state.recent("u1")
        return live if live.whole and len(live.events) == 2 else None

    try:
        assert ids(asyncio.run(main())) == ["e1", "e2"]
    finally:
        (redis_server.folder / "dump.rdb").unlink()


def test_a_locked_file_counts_as_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.state.sqlite.BUSY_MS", 50)

    async def main() -> Any:
        state = Reconciler(SQLiteStore(tmp_path / "state.db"), Journal(tmp_path / "journal"), ttl_s=TTL_S)
        await state.add([click(1)])
        with sqlite3.connect(tmp_path / "state.db", isolation_level=None) as other:
            other.execute("begin immediate")
            away = await state.add([click(2)])
            live = await state.recent("u1")
            other.execute("rollback")
        other.close()
        back = await until(lambda: whole(state, "u1"))
        await state.close()
        return away, live, back

    away, live, back = asyncio.run(main())
    assert away == ([True], False)
    assert (ids(live), live.whole) == (["e1", "e2"], False)
    assert ids(back) == ["e1", "e2"]


def test_a_caller_who_stops_waiting_leaves_nothing_half_done(open_store: Callable[[], Store], tmp_path: Path) -> None:
    async def main() -> Any:
        state = Reconciler(open_store(), Journal(tmp_path / "journal"), ttl_s=TTL_S)
        await state.ready()
        for number in range(80):
            post = asyncio.create_task(state.add([click(number)]))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            post.cancel()
            with suppress(asyncio.CancelledError):
                await post
        await until(lambda: whole(state, "u1"))
        live = await state.recent("u1")
        marks, _ = await state.store.marks(state.journal.id)
        await state.add([click(100)])
        await state.close()
        return live, marks

    live, marks = asyncio.run(main())
    in_journal = posted(tmp_path / "journal")
    assert len(in_journal) > 20
    assert ids(live) == in_journal[:-1]
    (path,) = (tmp_path / "journal").glob("events/*/*.posted.ndjson")
    assert marks[path.relative_to(tmp_path / "journal").as_posix()] > 0


def test_two_hosts_share_a_store_and_each_brings_back_its_own(redis_server: Server, tmp_path: Path) -> None:
    async def main() -> Any:
        hosts = [
            Reconciler(RedisStore(redis_server.url, ttl_s=TTL_S, timeout_s=1), Journal(tmp_path / name), ttl_s=TTL_S)
            for name in ("a", "b")
        ]
        for number, host in enumerate(hosts):
            await host.add([click(number)])
        redis_server.ask("FLUSHALL")

        async def all_back() -> Any:
            lives = [await whole(host, "u1") for host in hosts]
            return lives if all(live and len(live.events) == 2 for live in lives) else None

        found = await until(all_back)
        for host in hosts:
            await host.close()
        return found

    assert [ids(live) for live in asyncio.run(main())] == [["e0", "e1"]] * 2


def test_without_a_journal_a_post_needs_the_store(redis_server: Server) -> None:
    async def main() -> Any:
        state = Reconciler(RedisStore(redis_server.url), None, ttl_s=TTL_S)
        kept = await state.add([click(1)]), await state.recent("u1")
        redis_server.kill()
        with pytest.raises(StoreDownError):
            await state.add([click(2)])
        live = await state.recent("u1")
        await state.close()
        return kept, live

    (added, live), away = asyncio.run(main())
    assert (added, ids(live), live.whole) == (([True], True), ["e1"], True)
    assert (ids(away), away.whole) == ([], False)
