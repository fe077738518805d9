"""Make the next items of an iterator in a thread while the consumer works on this one."""

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(iterator: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """The same items, up to `depth` of them ready before they are asked for.

    An exception of the iterator is raised here, after the items before it. Once this generator has ended or is closed, the
    thread has ended. Worth it where the iterator spends its time outside the interpreter lock, as numpy does in a gather.
    """
    assert depth >= 1, f"depth={depth}"
    ready: SimpleQueue[tuple[Item, None] | tuple[None, BaseException]] = SimpleQueue()
    room, stopped = Semaphore(depth), Event()

    def work() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                ready.put((next(iterator), None))
        except BaseException as error:  # StopIteration, the end, among them
            ready.put((None, error))

    worker = Thread(target=work, name="prefetch", daemon=True)
    worker.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item  # type: ignore[misc]  # without an error there is an item
    finally:
        stopped.set()
        room.release()
        worker.join()
