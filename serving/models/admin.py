"""What an operator can do: each changes deployment.json, and all processes of the server follow within a
second, plus the loading of a version that they do not hold.

`live` is the server's folder (`Settings.live`). All raise InputError, in one sentence, and change nothing then. They read
files, and `deploy` and `set_canary` load the bundle to check it: call them in a thread.
"""

from pathlib import Path

from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.models.deployment import Canary, Deployment, Placed, edit, goes_live, read
from serving.models.folder import place


def deploy(live: Path, version: str) -> Deployment:
    """Answer with a version that lies in the models folder; what is live now becomes the previous one."""
    placed = _checked(live, version)
    return edit(live, lambda now: goes_live(now, placed))


def rollback(live: Path) -> Deployment:
    """Answer with the previous version again.

    Done twice, the second time is refused: a script that tries again must not bring back what was taken back.
    """
    previous = read(live).previous
    if previous is None or previous.version is None:
        raise InputError("there is no previous version to go back to: deploy one of the models folder by its version")
    _checked(live, previous.version)

    def back(now: Deployment) -> Deployment:
        if now.rolled_back is not None:
            raise InputError(f"version {now.rolled_back} was taken back already: deploy another by its version to go further")
        if now.previous != previous:
            raise InputError("another change came first: look at what is live now, and try again")
        return goes_live(now, previous).model_copy(update={"rolled_back": now.live.version})

    return edit(live, back)


def set_canary(live: Path, version: str, share: float) -> Deployment:
    """Let a share of the users, always the same ones, be answered by another version."""
    if not 0 < share < 1:
        raise InputError(f"share is {share!r}: send a number between 0 and 1, the share of the users")
    placed = _checked(live, version)

    def set_(now: Deployment) -> Deployment:
        if now.live.version == version:
            raise InputError(f"version is {version!r}: that one is live, a canary is another one")
        return now.model_copy(update={"canary": Canary(folder=placed.folder, version=version, share=share)})

    return edit(live, set_)


def promote_canary(live: Path) -> Deployment:
    """The canary answers everybody."""

    def promote(now: Deployment) -> Deployment:
        return goes_live(now, _canary(now))

    return edit(live, promote)


def remove_canary(live: Path) -> Deployment:
    """The live version answers everybody again."""

    def remove(now: Deployment) -> Deployment:
        _canary(now)
        return now.model_copy(update={"canary": None})

    return edit(live, remove)


def _canary(now: Deployment) -> Placed:
    if now.canary is None:
        raise InputError("there is no canary: set one first")
    return now.canary


def _checked(live: Path, version: str) -> Placed:
    """A version of the models folder whose files and graphs are in order."""
    placed = place(live, version)
    Bundle.load(placed.folder)
    return placed
