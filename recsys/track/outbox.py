"""Between the runs of this process and the store: two threads, so that neither a slow nor an absent store is felt in training.

One writes what the runs have said to their journals every second, which is what a kill can cost. The other sends the journals
to the store, and waits where that is away.
"""

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from recsys.track.delivery import NotYetError, deliver
from recsys.track.spool import Journal, say_once, spool_of
from recsys.track.store import SQLITE, StoreAwayError, open_store, shown
from recsys.track.sync import send_waiting

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from recsys.track.run import Run

JOURNAL_EVERY_S = 1.0
SEND_EVERY_S = 2.0  # to a server
SEND_FILE_EVERY_S = 10.0  # to an SQLite file, whose indexes cost less the more values come at once
RETRY_AFTER_S = 15.0  # when the store was away
PATIENCE_S = 10.0  # how long the end of a run waits for a store that takes nothing


class Outbox:
    """Of one store; its threads run while runs are open."""

    _all: dict[str, "Outbox"] = {}  # noqa: RUF012
    _guard = threading.Lock()

    def __init__(self, uri: str):
        self.uri = uri
        self._client: MlflowClient | None = None
        self._runs: list[Run] = []
        self._left: list[Journal] = []  # of runs that are closed and not wholly sent
        self._retry_at = 0.0
        self._away = self._swept = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._sent = threading.Condition()
        self._threads: list[threading.Thread] = []

    @classmethod
    def of(cls, uri: str, client: "MlflowClient | None") -> "Outbox":
        """The outbox of a store. Without a client the store has just been found away."""
        with cls._guard:
            outbox = cls._all.setdefault(uri, cls(uri))
        if client is None:
            outbox._lose(None)
        else:
            outbox._client, outbox._away, outbox._retry_at = client, False, 0.0
        return outbox

    def add(self, run: "Run") -> None:
        """Begin to send what the run says."""
        with self._guard:
            self._runs.append(run)
            if self._threads:
                return
            self._stop, self._swept = threading.Event(), False
            self._threads = [
                threading.Thread(target=work, args=(self._stop,), name=f"recsys{work.__name__}", daemon=True)
                for work in (self._journal, self._send)
            ]
            for thread in self._threads:
                thread.start()

    def settle(self, run: "Run") -> bool:
        """Wait until the store has taken all that the run has said; False where it is away, or takes nothing for a while."""
        run.write()
        seen, since = -1, time.monotonic()
        with self._sent:
            while run.journal.waiting or "run_id" not in run.journal.state:
                if self._away:
                    return False
                if run.journal.state["done"] != seen:
                    seen, since = run.journal.state["done"], time.monotonic()
                elif time.monotonic() - since > PATIENCE_S:
                    self._lose(TimeoutError("it takes nothing"))
                    return False
                self._wake.set()
                self._sent.wait(0.2)
        return True

    def close(self, run: "Run") -> None:
        """Wait until all is sent, unless the store is away: then a later command sends it."""
        last = len(self._runs) == 1
        if last and self._away:  # one more try, since the program is about to end
            with self._sent:
                self._away, self._retry_at = False, 0.0
        done = self.settle(run)
        with self._guard:
            self._runs.remove(run)
            threads = self._threads if last else []
            if last:
                self._stop.set()
                self._wake.set()
                self._threads = []
        for thread in threads:
            thread.join(0.5)  # one that hangs in a call to a server that is away ends with it
        if done or last:
            run.journal.close()
        else:
            self._left.append(run.journal)
        if last:
            for journal in self._left:
                journal.close()
            self._left = []

    def _journal(self, stop: threading.Event) -> None:
        while not stop.wait(JOURNAL_EVERY_S):
            for run in list(self._runs):
                run.write()

    def _send(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if time.monotonic() >= self._retry_at:
                try:
                    if self._client is None:
                        self._client = open_store(self.uri)
                    if not self._swept:
                        send_waiting(self._client, self.uri)
                        self._swept = True
                    for journal in [*self._left, *(run.journal for run in list(self._runs))]:
                        with suppress(NotYetError):
                            deliver(journal, self._client, self.uri)
                except Exception as error:  # whatever a store that is away makes of the call
                    if stop.is_set():
                        return
                    self._lose(error.__cause__ if isinstance(error, StoreAwayError) else error)
                else:
                    self._away = False
            with self._sent:
                self._sent.notify_all()
            self._wake.wait(SEND_FILE_EVERY_S if self.uri.startswith(SQLITE) else SEND_EVERY_S)
            self._wake.clear()

    def _lose(self, error: BaseException | None) -> None:
        self._away, self._retry_at, self._client = True, time.monotonic() + RETRY_AFTER_S, None
        reason = f" ({shown(str(error)).partition(chr(10))[0][:200]})" if error is not None else ""
        say_once(
            self.uri,
            f"The MLflow store {shown(self.uri)} is away{reason}: the work goes on, what it logs waits in {spool_of(self.uri)} "
            "and is sent when the store answers, at the latest by `recsys sync`",
        )
