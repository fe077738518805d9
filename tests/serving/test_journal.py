"""The journal: whole lines or none, whatever happens to disk and process, and what stands in them."""

import asyncio
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
from full_disk import files_of_at_most
from tiny_bundle import build_bundle

from recsys.errors import InputError
from serving.endpoint import Endpoint
from serving.journal.journal import Journal, JournalDownError, lines
from serving.journal.records import event_of, forgotten_of
from serving.journal.writer import DAY_MS, Writer, repair
from serving.models.deployment import Deployment, Placed, write
from serving.schema import Event, Events, Query
from serving.settings import Settings
from serving.state.store import LiveEvent

NOW_MS = 1_760_000_000_000  # 2025-10-09
EVENT = LiveEvent("e-1", "ïtem\n1", "like", NOW_MS - 5, "r-1", NOW_MS)


def records(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()]


def test_a_full_disk_takes_a_line_whole_or_not_at_all(tmp_path: Path) -> None:
    writer, line = Writer(tmp_path, "{day}-{process}"), b"x" * 299 + b"\n"
    with files_of_at_most(1000):
        begins = [writer.append(line, NOW_MS)[1] for _ in range(3)]
        for _ in range(2):
            with pytest.raises(OSError, match=r"space|large"):
                writer.append(line, NOW_MS)
        (path,) = tmp_path.iterdir()
        assert path.read_bytes() == line * 3
    assert begins == [0, 300, 600]
    assert writer.append(line, NOW_MS) == (path, 900)
    writer.close()


def test_events_on_a_full_disk_are_refused_in_a_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with (
        files_of_at_most(10),
        pytest.raises(JournalDownError, match=r"the journal cannot be written \(.*\): free space, then send it again"),
    ):
        journal.events([("u1", EVENT)], NOW_MS)
    place = journal.events([("u1", EVENT)], NOW_MS)
    assert (place.begin, place.end) == (0, (tmp_path / place.file).stat().st_size)
    journal.close()


def test_a_new_day_has_a_new_file_and_a_process_its_own(tmp_path: Path) -> None:
    writers = [Writer(tmp_path, "day={day}/{process}.ndjson") for _ in range(2)]
    for now_ms in (NOW_MS, NOW_MS + 1, NOW_MS + DAY_MS):
        writers[0].append(b"{}\n", now_ms)
    time.sleep(0.01)
    other = Writer(tmp_path, "day={day}/{process}.ndjson")
    other.append(b"{}\n", NOW_MS)
    found = sorted((path.parent.name, path.read_bytes().count(b"\n")) for path in tmp_path.glob("*/*.ndjson"))
    assert found == [("day=2025-10-09", 1), ("day=2025-10-09", 2), ("day=2025-10-10", 1)]
    for writer in (*writers, other):
        writer.close()


@pytest.mark.parametrize(
    ("left", "kept"),
    [(b"", b""), (b"{}\n", b"{}\n"), (b'{}\n{"a', b"{}\n"), (b'{"a', b""), (b"x\n" + b"y" * 200_000, b"x\n")],
)
def test_half_a_line_of_a_dead_process_is_cut_off(tmp_path: Path, left: bytes, kept: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(left)
    assert repair(path) == (left != kept)
    assert path.read_bytes() == kept


def _hold(folder: str, ready: Any, go_on: Any) -> None:
    writer = Writer(Path(folder), "held")
    writer.append(b'{}\n{"half', NOW_MS)
    ready.set()
    go_on.wait()


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, go_on = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, go_on))
    process.start()
    assert ready.wait(30)
    assert not repair(tmp_path / "held")
    process.kill()
    process.join()
    assert repair(tmp_path / "held")
    assert (tmp_path / "held").read_bytes() == b"{}\n"


def test_those_who_wait_for_the_disk_share_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, flush = [], os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (flushed.append(os.fstat(file).st_size), flush(file)))
    sizes = []

    async def post(journal: Journal) -> None:
        place = journal.events([("u1", EVENT)], NOW_MS)
        await journal.durable()
        sizes.append((place.end, max(flushed)))

    async def main() -> None:
        journal = Journal(tmp_path, fsync=True)
        await asyncio.gather(*(post(journal) for _ in range(100)))
        await asyncio.gather(*(post(journal) for _ in range(100)))
        journal.close()

    asyncio.run(main())
    assert len(flushed) < 20
    assert all(end <= size for end, size in sizes)  # none went on before a flush that had its lines


def test_what_was_written_is_read_from_any_line_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    places = [journal.events([("u\t1", EVENT)] * 3, NOW_MS) for _ in range(1000)]
    path = tmp_path / places[0].file
    with path.open("ab") as file:
        file.write(b'{"id":"half')
    found = [(line, end) for part, end in lines(path, places[10].begin) for line in part]
    assert len(found) == 3 * 990
    assert found[-1][1] == places[-1].end
    assert all(event_of(line) == ("u\t1", EVENT) for line, _ in found)
    place = journal.forgotten("u2", 77)
    assert [forgotten_of(line) for part, _ in lines(tmp_path / place.file, 0) for line in part] == [("u2", 77)]
    assert [event_of(line) for line in (b"", b"{}", b"[1]", b'{"id":"e"}', b"nonsense")] == [None] * 5
    journal.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/journal cannot be written .*: make it writable, or set `journal` to false"):
        Journal(tmp_path / "file" / "journal")


@pytest.fixture
def served(bundle_folder: Path, tmp_path: Path) -> Path:
    """The journal's folder after four lists, three events and a forgotten user."""
    write(Deployment(live=Placed(folder=bundle_folder)), tmp_path)

    async def main() -> None:
        endpoint = Endpoint(Settings(live=tmp_path, logged_requests=1))
        first = await endpoint.recommend(Query(user_id="user-3", k=5, time_ms=NOW_MS))
        await endpoint.recommend(Query(history=["item-3", "item-4"], k=4))
        await endpoint.recommend(Query(user_id='new "user"', k=2))
        click = Event(id="e-1", user_id="user-3", item_id=first.items[0].item_id, request_id=first.request_id)
        for posted in ([click], [click, Event(user_id="user-3", item_id="item-9", event="like", time_ms=NOW_MS)]):
            await endpoint.add(Events(events=posted))
        await endpoint.forget("user-7")
        await endpoint.close()

    asyncio.run(main())
    return tmp_path / "journal"


def test_impressions_have_a_line_for_every_item_shown_to_a_user(served: Path) -> None:
    found = records(served, "events/*/*.shown.ndjson")
    assert [(each["user_id"], each["slot"]) for each in found] == [
        *(("user-3", slot) for slot in range(5)),
        *(('new "user"', slot) for slot in range(2)),
    ]
    keys = "user_id time_ms event request_id model version arm item_id slot propensity score source"
    assert all(list(each) == keys.split() for each in found)
    assert {(each["event"], each["model"], each["arm"]) for each in found} == {("impression", "tiny", "live")}
    assert {each["time_ms"] for each in found[:5]} == {NOW_MS}
    assert len({each["item_id"] for each in found[:5]}) == 5


def test_sampled_requests_have_all_that_the_graphs_read(served: Path) -> None:
    first, bare, new = records(served, "requests/*.ndjson")
    keys = "request_id user_id time_ms version history history_ms behaviours context items tasks value known"
    assert list(first) == keys.split()
    assert (first["user_id"], bare["user_id"], new["history"]) == ("user-3", None, [])
    assert bare["history"] == ["item-3", "item-4"]
    assert len(first["history"]) == len(first["history_ms"]) == len(first["behaviours"]) > 2
    assert list(first["tasks"]) == ["click", "like"]
    assert len(first["items"]) == len(first["value"]) == len(first["tasks"]["like"]) >= 5
    expected = [p + 0.5 * q for p, q in zip(first["tasks"]["click"], first["tasks"]["like"], strict=True)]
    assert first["value"] == pytest.approx(expected)


def test_candidates_that_the_ranker_did_not_see_are_null(tmp_path: Path) -> None:
    """NaN, which Python writes and reads, is no JSON for anybody else."""
    write(Deployment(live=Placed(folder=build_bundle(tmp_path / "bundle", serving={"ranked": 3}))), tmp_path)

    async def main() -> None:
        endpoint = Endpoint(Settings(live=tmp_path, logged_requests=1))
        await endpoint.recommend(Query(user_id="user-3", k=5))
        await endpoint.close()

    asyncio.run(main())
    (path,) = (tmp_path / "journal" / "requests").iterdir()
    found = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [each is None for each in found["tasks"]["click"]] == [False] * 3 + [True] * (len(found["items"]) - 3)
    assert None not in found["value"]


def test_events_are_there_once_and_the_forgotten_are_named(served: Path) -> None:
    found = records(served, "events/*/*.posted.ndjson")
    assert [each["event"] for each in found] == ["click", "like"]
    assert list(found[0]) == ["id", "user_id", "item_id", "time_ms", "event", "request_id", "received_ms"]
    assert found[0]["id"] == "e-1"
    assert found[1]["time_ms"] == NOW_MS
    (gone,) = records(served, "events/*/*.forgotten.ndjson")
    assert (gone["user_id"], gone["event"], gone["item_id"]) == ("user-7", "forgotten", None)


def test_without_a_journal_nothing_is_written(bundle_folder: Path, tmp_path: Path) -> None:
    write(Deployment(live=Placed(folder=bundle_folder)), tmp_path)

    async def main() -> tuple[int, int]:
        endpoint = Endpoint(Settings(live=tmp_path, journal=False))
        answer = await endpoint.recommend(Query(user_id="user-3", k=3))
        added = await endpoint.add(Events(events=[Event(user_id="u", item_id="item-1")]))
        await endpoint.close()
        return len(answer.items), added.accepted

    assert asyncio.run(main()) == (3, 1)
    assert not (tmp_path / "journal").exists()
