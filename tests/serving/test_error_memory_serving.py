"""The error memory at the endpoint: filled by the journal, read per request, and made again after a restart."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.answers import Recommendations
from serving.bundle.bundle import Bundle
from serving.cascade.compensate import compensated as compensated_answers
from serving.endpoint import Endpoint
from serving.error_memory import memories
from serving.models.deployment import Deployment, Placed, write
from serving.schema import Event, Events, Query, RankQuery
from serving.settings import Settings

MEMORY = {"tasks": ["click"], "window_s": 5, "prior": 0, "strength": 1, "item_share": 1, "bits": 4, "slots": 16}
LATER_MS = 20_000  # after the window of what is served now
ASK = Query(user_id="user-3", k=10, filter_seen=False)


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(serving={"error_memory": MEMORY}, value={"click": 1.0})


def run(live: Path, bundle: Path, ask: Callable[[Endpoint], Awaitable[Any]], **settings: Any) -> Any:
    """What a coroutine gives with an endpoint of its own."""
    write(Deployment(live=Placed(folder=bundle)), live)

    async def inside() -> Any:
        endpoint = Endpoint(Settings(live=live, **settings))
        try:
            return await ask(endpoint)
        finally:
            await endpoint.close()

    return asyncio.run(inside())


async def learn(endpoint: Endpoint) -> None:
    """What was served by now is settled."""
    assert endpoint.journal is not None
    await endpoint.errors.turn(endpoint.journal, int(time.time() * 1000) + LATER_MS)


async def teach(endpoint: Endpoint, rounds: int = 5) -> None:
    """Lists of which nothing is ever clicked but item-7, of which everyone clicks."""
    for _ in range(rounds):
        for user in range(4):
            shown = await endpoint.recommend(Query(user_id=f"user-{user}", k=20, filter_seen=False))
            clicked = Event(user_id=f"user-{user}", item_id="item-7", event="click", request_id=shown.request_id)
            await endpoint.add(Events(events=[clicked]))
    await learn(endpoint)


def count(endpoint: Endpoint, bundle: Bundle) -> int:
    memory = endpoint.errors.of(bundle)
    assert memory is not None
    return memory.count


def clicks(answer: Any) -> dict[str, float]:
    return {item.item_id: item.tasks["click"] for item in answer.items}


async def both(endpoint: Endpoint) -> tuple[Recommendations, Recommendations]:
    return await endpoint.recommend(ASK.model_copy(update={"compensate": False})), await endpoint.recommend(ASK)


def test_what_nobody_clicks_sinks_and_a_request_can_leave_the_memory_out(bundle: Path, tmp_path: Path) -> None:
    async def ask(endpoint: Endpoint) -> tuple[Any, ...]:
        before = await both(endpoint)
        await teach(endpoint)
        query = RankQuery(user_id="user-3", items=["item-7", "item-8"])
        return (*before, *await both(endpoint), await endpoint.rank(query))

    plain_before, first, plain, better, ranked = run(tmp_path / "live", bundle, ask)
    assert clicks(first) == clicks(plain_before)  # nothing is known yet
    assert all(0 <= probability <= 1 for probability in clicks(better).values())
    said, found = clicks(plain), clicks(better)
    shared = [item for item in said if item in found and item != "item-7" and said[item] > 0.2]
    assert len(shared) > 2
    assert all(found[item] < said[item] for item in shared)
    assert [item.score for item in better.items] == pytest.approx(list(found.values()), abs=1e-6)  # value = 1.0 * click
    assert "item-7" in clicks(ranked)


def test_an_error_is_what_the_model_itself_was_off_by_whoever_was_corrected(bundle: Path, tmp_path: Path) -> None:
    live = tmp_path / "live"

    async def ask(endpoint: Endpoint) -> tuple[Recommendations, Recommendations]:
        await teach(endpoint)
        return await both(endpoint)

    plain, _ = run(live, bundle, ask)
    rows = [json.loads(line) for path in (live / "journal/predictions").glob("*") for line in path.read_bytes().splitlines()]
    *_, left_out, corrected = rows
    assert (left_out["compensated"], corrected["compensated"]) == (False, True)
    assert left_out["request_id"] == plain.request_id
    assert dict(zip(left_out["items"], left_out["tasks"]["click"], strict=True)) == pytest.approx(clicks(plain))
    model = dict(zip(left_out["items"], left_out["tasks"]["click"], strict=True))
    again = dict(zip(corrected["items"], corrected["tasks"]["click"], strict=True))
    assert set(model) & set(again)
    assert all(again[item] == pytest.approx(model[item]) for item in set(model) & set(again))


def test_a_click_that_comes_while_the_journal_is_read_is_none_that_is_missed(bundle: Path, tmp_path: Path) -> None:
    """A list and its click that are written after the lists were read, and before the events are."""

    async def ask(endpoint: Endpoint) -> float:
        reading = endpoint.errors._read_predictions

        async def meanwhile(*given: Any) -> None:
            await reading(*given)
            shown = await endpoint.recommend(ASK)
            await asyncio.sleep(0.01)  # its line is written
            event = Event(user_id="user-3", item_id=shown.items[0].item_id, event="click", request_id=shown.request_id)
            await endpoint.add(Events(events=[event]))

        assert endpoint.errors.of(endpoint.models.live) is None  # it has begun to read
        endpoint.errors._read_predictions = meanwhile  # type: ignore[method-assign]
        await learn(endpoint)
        endpoint.errors._read_predictions = reading  # type: ignore[method-assign]
        await learn(endpoint)
        memory = endpoint.errors.of(endpoint.models.live)
        assert memory is not None
        assert memory.count == 10
        return float(memory._memory._error_ET.max())

    assert run(tmp_path / "live", bundle, ask) > 0  # a click is more than was said of it


def test_requests_come_between_lists_that_are_learned_from(bundle: Path, tmp_path: Path) -> None:
    """As after a restart, when thousands may be due."""

    async def ask(endpoint: Endpoint) -> tuple[int, int]:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        for _ in range(200):
            await endpoint.recommend(Query(user_id="user-3", k=1, filter_seen=False))
        await asyncio.sleep(0.01)
        task = asyncio.create_task(others())
        await learn(endpoint)
        task.cancel()
        return turns, count(endpoint, endpoint.models.live)

    turns, learned = run(tmp_path / "live", bundle, ask)
    assert learned == 200
    assert turns >= 200


def test_a_restart_makes_the_same_memory_again(bundle: Path, tmp_path: Path) -> None:
    async def first(endpoint: Endpoint) -> dict[str, float]:
        await teach(endpoint)
        return clicks(await endpoint.rank(RankQuery(history=["item-3"], items=[f"item-{n}" for n in range(40)])))

    async def second(endpoint: Endpoint) -> dict[str, float]:
        await learn(endpoint)
        return clicks(await endpoint.rank(RankQuery(history=["item-3"], items=[f"item-{n}" for n in range(40)])))

    before, after = run(tmp_path / "live", bundle, first), run(tmp_path / "live", bundle, second)
    assert after == pytest.approx(before, abs=1e-6)


def test_two_processes_learn_from_each_other(bundle: Path, tmp_path: Path) -> None:
    async def ask(endpoint: Endpoint) -> tuple[int, int]:
        other = Endpoint(endpoint.settings)
        try:
            await teach(other)
            await learn(endpoint)
            return count(other, other.models.live), count(endpoint, endpoint.models.live)
        finally:
            await other.close()

    mine, theirs = run(tmp_path / "live", bundle, ask)
    assert mine == theirs > 0


def test_a_forgotten_user_leaves_it_here_and_after_a_restart(bundle: Path, tmp_path: Path) -> None:
    async def sizes(endpoint: Endpoint) -> tuple[int, int]:
        await endpoint.recommend(Query(user_id="user-3", k=10, filter_seen=False))
        await endpoint.recommend(Query(user_id="user-4", k=7, filter_seen=False))
        await learn(endpoint)
        before = count(endpoint, endpoint.models.live)
        await endpoint.forget("user-3")
        await learn(endpoint)
        return before, count(endpoint, endpoint.models.live)

    async def again(endpoint: Endpoint) -> int:
        await learn(endpoint)
        return count(endpoint, endpoint.models.live)

    assert run(tmp_path / "live", bundle, sizes) == (17, 7)
    assert run(tmp_path / "live", bundle, again) == 7


def test_a_new_version_begins_with_no_errors(bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    async def ask(endpoint: Endpoint) -> tuple[int, Any, Any]:
        await teach(endpoint)
        old = endpoint.models.live
        newer = dataclasses.replace(old, version="f" * 16)
        endpoint.models._held = dataclasses.replace(endpoint.models.held, live=newer, previous=old)
        await learn(endpoint)
        sizes = count(endpoint, old), count(endpoint, newer)
        endpoint.models._held = dataclasses.replace(endpoint.models.held, previous=None)
        await learn(endpoint)
        return *sizes, endpoint.errors.of(old)

    of_old, of_new, gone = run(tmp_path / "live", bundle, ask)
    assert of_old > 0
    assert of_new == 0
    assert gone is None


def test_a_small_memory_reads_only_the_end_of_the_journal(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is cut in the middle of a line, no list is labelled without all of its events."""

    async def size(endpoint: Endpoint) -> int:
        await learn(endpoint)
        return count(endpoint, endpoint.models.live)

    run(tmp_path / "live", bundle, teach)
    whole = run(tmp_path / "live", bundle, size)
    monkeypatch.setattr(memories, "POSTED_BYTES", 700)
    assert 0 < run(tmp_path / "live", bundle, size) < whole
    monkeypatch.setattr(memories, "BYTES_OF_ENTRY", 0)
    assert run(tmp_path / "live", bundle, size) == 0


def test_days_that_are_played_in_seconds_are_learned_from_at_their_own_moments(bundle: Path, tmp_path: Path) -> None:
    """With the clock of requests nothing is known before the window of a list is over, by what requests say the time is."""
    start_ms = 1_700_000_000_000

    async def ask(endpoint: Endpoint) -> tuple[Any, ...]:
        shown = await endpoint.recommend(Query(user_id="user-1", k=20, filter_seen=False, time_ms=start_ms))
        liked = shown.items[3].item_id
        clicked = Event(user_id="user-1", item_id=liked, event="click", request_id=shown.request_id, time_ms=start_ms)
        await endpoint.add(Events(events=[clicked]))

        async def compared(time_ms: int) -> tuple[dict[str, float], dict[str, float]]:
            names = [item.item_id for item in shown.items]
            query = RankQuery(user_id=ASK.user_id, items=names, time_ms=time_ms)
            plain = await endpoint.rank(query.model_copy(update={"compensate": False}))
            return clicks(plain), clicks(await endpoint.rank(query))

        return liked, await compared(start_ms + 5_000), await compared(start_ms + 3_600_000), endpoint.errors._task

    liked, (plain, within), (same, later), task = run(tmp_path / "live", bundle, ask, clock="requests")
    assert plain == within == same
    assert later[liked] > plain[liked]
    shared = [item for item in plain if item != liked and plain[item] > 0.2]
    assert len(shared) > 2
    assert sum(later[item] < plain[item] for item in shared) > len(shared) / 2
    assert task is None  # nothing depends on how fast it is played


def test_off_costs_nothing(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    """No file, no task, and the very arrays of the graph."""

    async def ask(endpoint: Endpoint) -> tuple[Any, ...]:
        await both(endpoint)
        return endpoint.errors.of(endpoint.models.live), endpoint.errors._task

    live = tmp_path / "live"
    assert run(live, make_bundle(), ask) == (None, None)
    assert not (live / "journal/predictions").exists()
    probability_BKT = np.zeros((1, 3, 2), np.float32)

    class Off:
        errors = None

    assert compensated_answers([Off()], np.zeros((1, 3), np.int64), probability_BKT) is probability_BKT  # type: ignore[list-item]


def test_without_a_journal_there_is_nothing_to_learn_from(bundle: Path, tmp_path: Path) -> None:
    async def ask(endpoint: Endpoint) -> tuple[Any, Any]:
        plain, better = await both(endpoint)
        return clicks(plain), clicks(better)

    plain, better = run(tmp_path / "live", bundle, ask, journal=False)
    assert plain == better
