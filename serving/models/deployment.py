"""Which bundles a server is to answer with: one JSON file that all its processes watch, replaced as a whole.

`deployment.json` and the bundles that it names lie in the server's `live` folder, the bundles under models/FINGERPRINT.
"""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from recsys.errors import InputError
from recsys.spec import Spec

DEPLOYMENT_FILE, LOCK_FILE = "deployment.json", "deployment.lock"
FOLLOW_FILE = "follow.json"  # how the process that follows an alias is doing, for /info; absent where none does


class Placed(Spec):
    """A bundle folder, and the fingerprint that its manifest must have; None: take in what lies there (see `settled`)."""

    folder: Path
    version: str | None = None


class Canary(Placed):
    share: float = Field(gt=0, lt=1, description="of the users")


class Deployment(Spec):
    live: Placed
    previous: Placed | None = None
    canary: Canary | None = None
    salt: str = Field("", description="of the assignment of users to the canary; another one, another draw")
    source: Path | None = Field(None, description="folder of a run's bundle: an export there goes live")
    taken: str | None = Field(None, description="the version last taken from `source` or an alias; it is not taken twice")
    rolled_back: str | None = Field(None, description="the version that the last change took back")


def write(deployment: Deployment, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{DEPLOYMENT_FILE}.{os.getpid()}"
    scratch.write_text(json.dumps(deployment.model_dump(mode="json"), indent=1) + "\n")
    scratch.rename(folder / DEPLOYMENT_FILE)


def read(folder: Path) -> Deployment:
    """Raises InputError where there is none, or it cannot be understood."""
    path = folder / DEPLOYMENT_FILE
    try:
        return Deployment.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: start the server with `recsys serve`, which writes it") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "its text"
        raise InputError(f"{path} cannot be read ({place}: {first['msg']}): mend it, or remove it and start anew") from error


def edit(folder: Path, change: Callable[[Deployment], Deployment]) -> Deployment:
    """Replace the deployment by what `change` makes of it; processes that edit at once do so one after another."""
    with (folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read(folder)
        after = change(before)
        if after != before:
            write(after, folder)
        return after


def follow_folder(source: Path, folder: Path) -> None:
    """Let the server of this `live` folder answer with what is exported to `source`, now and later.

    A server that is started again with the same source keeps what it had, a rollback and a canary included.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FOLLOW_FILE).unlink(missing_ok=True)
    if not (folder / DEPLOYMENT_FILE).exists():
        write(Deployment(live=Placed(folder=source), source=source), folder)
        return
    edit(folder, lambda now: now if now.source == source else now.model_copy(update={"source": source, "taken": None}))


def goes_live(now: Deployment, placed: Placed) -> Deployment:
    """The deployment after `placed` became live: what was live is kept as the previous one, and a canary of it is over."""
    over = now.canary is not None and now.canary.version == placed.version
    return now.model_copy(
        update={
            "live": Placed(folder=placed.folder, version=placed.version),
            "previous": now.previous if now.live.version in (placed.version, None) else now.live,
            "canary": None if over else now.canary,
            "rolled_back": None,
        }
    )
