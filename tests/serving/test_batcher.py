"""Questions to the graphs: together where they wait, alone at once, and none failing for another."""

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.batcher import Batcher, QueueFullError
from serving.bundle.bundle import Bundle
from serving.cascade.asked import resolve
from serving.cascade.score import Scored, score
from serving.schema import Query
from serving.state.store import Live


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


def question(bundle: Bundle, user: int) -> Any:
    return resolve(bundle, Query(user_id=f"user-{user}"), Live())


class Watched:
    """The real scoring, with the sizes of the batches, the threads they ran in, and a pause that lets others arrive."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s, self.sizes, self.threads = pause_s, [], set()  # type: ignore[var-annotated]

    def __call__(self, bundle: Bundle, questions: Sequence[tuple[Any, int]]) -> list[Scored]:
        self.sizes.append(len(questions))
        self.threads.add(threading.current_thread())
        time.sleep(self.pause_s)
        return score(bundle, questions)


def test_those_that_wait_are_answered_together_and_each_gets_its_own(bundle: Bundle) -> None:
    watched = Watched(0.02)

    async def ask() -> list[Scored]:
        batcher = Batcher(watched, max_batch=8)
        return await asyncio.gather(*(batcher.submit(bundle, question(bundle, user), 10) for user in range(12)))

    found = asyncio.run(ask())
    assert watched.sizes == [8, 4]
    for user, scored in enumerate(found):
        [alone] = score(bundle, [(question(bundle, user), 10)])
        assert scored.item_K.tolist() == alone.item_K.tolist()
        assert scored.value_K == pytest.approx(alone.value_K)


def test_two_versions_are_not_mixed(bundle: Bundle, bundle_folder: Path) -> None:
    other, watched = Bundle.load(bundle_folder), Watched(0.02)

    async def ask() -> None:
        batcher = Batcher(watched)
        await asyncio.gather(*(batcher.submit(each, question(each, 3), 5) for each in (bundle, other, bundle, other)))

    asyncio.run(ask())
    assert watched.sizes == [2, 2]


def test_a_lone_question_to_fast_graphs_stays_in_the_loop(bundle: Bundle) -> None:
    watched = Watched()

    async def ask() -> None:
        batcher = Batcher(watched)
        for _ in range(30):
            await batcher.submit(bundle, question(bundle, 3), 5, alone=True)

    asyncio.run(ask())
    assert threading.main_thread() in watched.threads


def test_slow_graphs_never_hold_up_the_loop(bundle: Bundle) -> None:
    watched = Watched(0.01)

    async def ask() -> None:
        batcher = Batcher(watched)
        for _ in range(10):
            await batcher.submit(bundle, question(bundle, 3), 5, alone=True)

    asyncio.run(ask())
    assert threading.main_thread() not in watched.threads


def test_one_bad_question_fails_alone(bundle: Bundle) -> None:
    def picky(bundle: Bundle, questions: Sequence[tuple[Any, int]]) -> list[Scored]:
        if any(k == 13 for _, k in questions):
            raise RuntimeError("13")
        return score(bundle, questions)

    async def ask() -> list[Scored | BaseException]:
        batcher = Batcher(picky)
        tasks = (batcher.submit(bundle, question(bundle, 3), k) for k in (5, 13, 7))
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, bad, last = asyncio.run(ask())
    assert isinstance(first, Scored)
    assert isinstance(last, Scored)
    assert isinstance(bad, RuntimeError)


def test_a_full_queue_is_said_and_who_has_left_is_not_computed(bundle: Bundle) -> None:
    watched = Watched(0.05)

    async def ask() -> None:
        batcher = Batcher(watched, max_queue=2)
        first = asyncio.create_task(batcher.submit(bundle, question(bundle, 1), 5))
        await asyncio.sleep(0.01)  # it runs now
        left = asyncio.create_task(batcher.submit(bundle, question(bundle, 2), 5))
        stays = asyncio.create_task(batcher.submit(bundle, question(bundle, 3), 5))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="2 requests wait already"):
            await batcher.submit(bundle, question(bundle, 4), 5)
        left.cancel()
        await asyncio.gather(first, stays)
        assert batcher.queue == 0

    asyncio.run(ask())
    assert watched.sizes == [1, 1]
