"""What waits in the spool for a store, and sending it: by `recsys sync`, or by the next command that opens the store."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.track.delivery import NotYetError, deliver, orphaned
from recsys.track.spool import Journal, journals, log
from recsys.track.store import StoreAwayError, open_store, resolve_uri

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class Waiting:
    """A run's journal that no process writes to any more and that the store has not wholly taken."""

    run: str  # its id, a local one where the store does not know it yet
    name: str
    entries: int
    folder: str
    ended: bool  # False: its process was killed


def waiting(uri: str | None = None) -> list[Waiting]:
    """What waits for the store, oldest first. The store itself is not asked."""
    found = []
    for folder in journals(resolve_uri(uri)):
        journal = Journal.open(folder)
        if journal is None:
            continue
        header = journal.header
        run = journal.state.get("run_id") or header.get("resume") or header["local"]
        found.append(Waiting(run, header.get("name", ""), journal.waiting, str(folder), journal.ended))
        journal.leave()
    return found


def sync(uri: str | None = None) -> int:
    """Send what waits; returns of how many journals. Raises InputError when the store cannot be opened."""
    uri = resolve_uri(uri)
    return send_waiting(open_store(uri), uri) if journals(uri) else 0


def send_waiting(client: "MlflowClient", uri: str) -> int:
    """Send the journals that processes have left, oldest first; returns how many are wholly sent.

    Raises StoreAwayError where a server goes away meanwhile. A run that a killed process left open is KILLED.
    """
    sent = 0
    for folder in journals(uri):
        journal = Journal.open(folder)
        if journal is None:
            continue
        try:
            if not journal.ended:
                journal.append(orphaned(journal))
            deliver(journal, client, uri, anew=True)
            sent += 1
        except NotYetError:  # what it hangs on is in a journal that somebody still writes to, or was deleted
            continue
        except StoreAwayError:
            raise
        except (AssertionError, LookupError, TypeError, ValueError) as error:  # of another version, or broken
            kept = journal.set_aside()
            log.warning(f"{folder} holds what this version cannot send ({error!r}): it is kept as {kept}, the rest goes on")
        finally:
            journal.close()
    return sent
