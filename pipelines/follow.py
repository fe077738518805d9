"""Follow an alias of a registered model: what it points to is fetched into the server's models folder and goes live.

Only this process opens the store. The server's own processes read `live`, so that they need neither the store nor MLflow.
"""

import json
import logging
import os
import signal
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from recsys import track
from recsys.errors import InputError
from recsys.track import Version
from serving.bundle.bundle import Bundle
from serving.models.deployment import DEPLOYMENT_FILE, FOLLOW_FILE, Deployment, Placed, edit, goes_live, write
from serving.models.folder import arriving, place, prune, put, versions
from serving.run import check_free, start_child, stop
from serving.settings import Settings
from serving.starting import check_start

logger = logging.getLogger("recsys.follow")


class Follower:
    """Looks at the alias when asked to. What it did stands in `live`/follow.json, from which the next one goes on."""

    def __init__(self, live: Path, model: str, alias: str, *, uri: str | None = None) -> None:
        self.live, self.model, self.alias, self.uri = live, model, alias, uri
        live.mkdir(parents=True, exist_ok=True)
        before = self._read()
        same = before.get("model") == model and before.get("alias") == alias
        self._state: dict[str, Any] = before if same else {"model": model, "alias": alias}
        self._refused: str | None = None  # a bundle that was fetched and did not pass; it is not fetched again

    def look(self) -> bool:
        """Whether the alias could be followed. Where not, the last good version goes on and follow.json has the reason."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._follow()
        except Exception as error:  # MLflow's, the database's and the network's own, by the kind of store
            reason = str(error).partition("\n")[0] or type(error).__name__
            if self.last_error != reason:
                logger.warning("the alias %s of %s is not followed: %s", self.alias, self.model, reason)
            self._write(last_error={"reason": reason, "time": now})
            return False
        self._write(last_success=now, last_error=None)
        return True

    @property
    def last_error(self) -> str:
        """Why the last look failed; empty where it did not."""
        return (self._state.get("last_error") or {}).get("reason", "")

    def _follow(self) -> None:
        version = track.get_alias(self.model, self.alias, uri=self.uri)
        if version is None:
            raise InputError(f"The model {self.model!r} has no version with the alias {self.alias!r}: promote one first")
        key = f"{version.run_id}/{version.folder}"
        if key == self._state.get("followed"):
            return
        if key == self._refused:
            raise InputError(self.last_error)
        placed = self._place(version, key)
        try:
            Bundle.load(placed.folder)
        except Exception:
            self._refused = key
            raise
        deployed = self._deploy(placed)
        bundles = {**self._state.get("bundles", {}), key: placed.version}
        prune(self.live, deployed)
        there = set(versions(self.live))
        self._state["bundles"] = {each: name for each, name in bundles.items() if name in there}
        self._write(followed=key, number=version.number, version=placed.version)
        logger.warning("version %s of %s, %s, goes live", version.number, self.model, placed.version)

    def _place(self, version: Version, key: str) -> Placed:
        """The bundle in the models folder: as fetched before, or fetched aside, its hashes checked, and renamed."""
        if (known := self._state.get("bundles", {}).get(key)) in versions(self.live):
            return place(self.live, known)
        with arriving(self.live) as scratch:
            return put(track.fetch(version, scratch, uri=self.uri), self.live)

    def _deploy(self, placed: Placed) -> Deployment:
        followed = {"source": None, "taken": placed.version}
        if not (self.live / DEPLOYMENT_FILE).exists():
            write(Deployment(live=placed, taken=placed.version), self.live)
        return edit(self.live, lambda now: goes_live(now, placed).model_copy(update=followed))

    def _read(self) -> dict[str, Any]:
        path = self.live / FOLLOW_FILE
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _write(self, **changes: Any) -> None:
        self._state |= changes
        scratch = self.live / f".{FOLLOW_FILE}.{os.getpid()}"
        try:
            scratch.write_text(json.dumps(self._state, indent=1) + "\n")
            scratch.rename(self.live / FOLLOW_FILE)
        except OSError as error:  # a full disk does not end the server; what is known here is written at the next look
            logger.warning("%s is not written: %s", self.live / FOLLOW_FILE, error)


def serve_alias(settings: Settings, follower: Follower, *, host: str, port: int, every_s: float) -> int:
    """Serve what the alias points to until Ctrl-C or SIGTERM (0), or until the server ends by itself (its exit status).

    Raises InputError where there is nothing to serve: the alias cannot be followed and nothing was fetched before.
    """
    check_free(host, port)
    check_start(settings)
    if not follower.look() and not (settings.live / DEPLOYMENT_FILE).exists():
        raise InputError(follower.last_error)
    for each in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal, too, must not leave the server behind
        signal.signal(each, _interrupt)
    with tempfile.TemporaryDirectory(prefix="recsys-serve-") as scratch:
        server = start_child(settings, host, port, Path(scratch))
        try:
            while True:
                try:
                    return server.wait(every_s)
                except subprocess.TimeoutExpired:
                    follower.look()
        except KeyboardInterrupt:
            return 0
        finally:
            stop(server)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
