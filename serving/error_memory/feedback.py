"""What became of lists that were served: a label is known only once the time for its event is over.

A yes is known as soon as its event comes, a no only at the end of the window. Were yeses taken at once, the errors of the last
window would be those of the yeses alone, and everything would look better than it is; so both wait. Shapes: K = items of a
list, C = tasks.
"""

import heapq
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from recsys.error_memory import ErrorMemorySpec
from serving.error_memory.of_bundle import Answered, Array
from serving.journal.predictions import Prediction
from serving.state.store import LiveEvent

GRACE_MS = 1_000  # for an event that was received in time, and not yet in the journal


class _Waiting:
    def __init__(self, each: Prediction, spec: ErrorMemorySpec) -> None:
        self.each, self.last_ms = each, each.served_ms + int(spec.window_s * 1000)
        self.task = {task: c for c, task in enumerate(spec.tasks)}
        self.label_KC: Array = np.zeros((len(each.items), len(spec.tasks)), np.float32)

    def hear(self, event: LiveEvent) -> None:
        """An event counts for the list that it names, or for all in which its item stood; not before the list was served."""
        in_time = self.each.served_ms <= event.received_ms <= self.last_ms
        if in_time and event.event in self.task and event.request_id in (None, self.each.request_id):
            for place, item in enumerate(self.each.items):
                if item == event.item_id:
                    self.label_KC[place, self.task[event.event]] = 1

    def answered(self) -> Answered:
        each = self.each
        said_KC = np.array([each.tasks[task] for task in self.task], np.float32).T
        return Answered(each.user_id, each.history, each.items, said_KC, self.label_KC)


class Feedback:
    """Lists that wait for their labels: at most `most`, further ones are left out."""

    def __init__(self, most: int) -> None:
        self.most, self.left_out = most, 0
        self._due: list[tuple[int, int, _Waiting]] = []
        self._number = count()
        self._of_user: dict[str, list[_Waiting]] = {}
        self._forgotten_ms: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    @property
    def oldest_ms(self) -> int | None:
        """When the list that waits longest was served."""
        return min((waiting.each.served_ms for *_, waiting in self._due), default=None)

    def served(self, each: Prediction, spec: ErrorMemorySpec) -> None:
        if each.served_ms <= self._forgotten_ms.get(each.user_id, -1) or set(spec.tasks) - set(each.tasks):
            return
        if len(self._due) >= self.most:
            self.left_out += 1
            return
        waiting = _Waiting(each, spec)
        heapq.heappush(self._due, (waiting.last_ms, next(self._number), waiting))
        self._of_user.setdefault(each.user_id, []).append(waiting)

    def posted(self, user_id: str, event: LiveEvent) -> None:
        for waiting in self._of_user.get(user_id, ()):
            waiting.hear(event)

    def forget(self, user_id: str, time_ms: int) -> None:
        """Lists served up to then are not waited for any more."""
        self._forgotten_ms[user_id] = max(time_ms, self._forgotten_ms.get(user_id, 0))
        self._drop(lambda waiting: waiting.each.user_id == user_id and waiting.each.served_ms <= time_ms)

    def drop_before(self, time_ms: int) -> None:
        """Lists of which events may have been missed."""
        self._drop(lambda waiting: waiting.each.served_ms < time_ms)

    def settled(self, now_ms: int) -> Iterator[tuple[str, Answered]]:
        """The version and the outcome of every list whose time is over, in that order."""
        while self._due and self._due[0][0] + GRACE_MS <= now_ms:
            waiting = heapq.heappop(self._due)[2]
            self._gone(waiting)
            yield waiting.each.version, waiting.answered()

    def _drop(self, over: Callable[[_Waiting], bool]) -> None:
        left = [entry for entry in self._due if not over(entry[2])]
        for *_, waiting in self._due:
            if over(waiting):
                self._gone(waiting)
        heapq.heapify(left)
        self._due = left

    def _gone(self, waiting: _Waiting) -> None:
        mine = self._of_user[waiting.each.user_id]
        mine.remove(waiting)
        if not mine:
            del self._of_user[waiting.each.user_id]
