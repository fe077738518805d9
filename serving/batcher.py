"""Questions that wait for the graphs are answered together: a lone one at once, those that come meanwhile as the next batch.

BentoML's own batching holds a lone request back for others that may come; here nobody waits but for the batch before.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serving.bundle.bundle import Bundle
from serving.cascade.asked import Asked
from serving.cascade.score import Scored

Score = Callable[[Bundle, Sequence[tuple[Asked, int]]], list[Scored]]
INLINE_S = 0.005  # graphs that take no longer may hold up the event loop for one lone question
SMOOTHING = 0.1


class QueueFullError(Exception):
    """More questions wait than the server takes: the caller may come again in a moment."""


@dataclass(eq=False)
class _Waiting:
    bundle: Bundle
    question: tuple[Asked, int]
    answer: "asyncio.Future[Scored]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Runs `score` on one batch at a time, in a thread of its own, so that the next requests are read meanwhile.

    The hop to the thread and back costs a lone request a tenth of a millisecond or more, so that where nothing else is asked
    and the graphs are fast, they run in the event loop.
    """

    def __init__(self, score: Score, *, max_batch: int = 16, max_queue: int = 256, timeout_s: float = 1.0) -> None:
        self.score, self.max_batch, self.max_queue, self.timeout_s = score, max_batch, max_queue, timeout_s
        self.on_batch: Callable[[int], None] = lambda size: None  # told the size of every batch
        self._waiting: list[_Waiting] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graphs")
        self._runner: asyncio.Task[None] | None = None
        self._lone_s = INLINE_S  # how long a batch of one has taken lately

    async def submit(self, bundle: Bundle, asked: Asked, k: int, *, alone: bool = False) -> Scored:
        """`alone`: nothing else is being asked of this process.

        Raises QueueFullError, TimeoutError for a question that waited too long, and whatever `score` raises.
        """
        if alone and self._runner is None and self._lone_s < INLINE_S:
            return self._timed(bundle, [(asked, k)])[0]
        async with asyncio.timeout(self.timeout_s):
            return await self._queued(bundle, asked, k)

    async def _queued(self, bundle: Bundle, asked: Asked, k: int) -> Scored:
        if len(self._waiting) >= self.max_queue:
            raise QueueFullError(f"{self.max_queue} requests wait already")
        waiting = _Waiting(bundle, (asked, k))
        self._waiting.append(waiting)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await waiting.answer

    @property
    def queue(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._answer(self._next())
        finally:
            self._runner = None

    def _next(self) -> list[_Waiting]:
        """The oldest question and those of the same bundle that go with it; who has given up is left out."""
        self._waiting = [each for each in self._waiting if not each.answer.done()]
        if not self._waiting:
            return []
        bundle = self._waiting[0].bundle
        batch = [each for each in self._waiting if each.bundle is bundle][: self.max_batch]
        chosen = set(map(id, batch))
        self._waiting = [each for each in self._waiting if id(each) not in chosen]
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        """One batch. Where it fails as a whole each question is tried alone, so that none suffers for another."""
        if not batch:
            return
        loop, questions = asyncio.get_running_loop(), [each.question for each in batch]
        try:
            found = await loop.run_in_executor(self._thread, self._timed, batch[0].bundle, questions)
        except Exception as error:
            if len(batch) > 1:
                for each in batch:
                    await self._answer([each])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for each, scored in zip(batch, found, strict=True):
            if not each.answer.done():
                each.answer.set_result(scored)

    def _timed(self, bundle: Bundle, questions: list[tuple[Asked, int]]) -> list[Scored]:
        began = time.perf_counter()
        found = self.score(bundle, questions)
        if len(questions) == 1:
            self._lone_s += SMOOTHING * (time.perf_counter() - began - self._lone_s)
        self.on_batch(len(questions))
        return found
