"""The bundles that this process holds, and which of them answers whom.

They follow deployment.json: what changes there, or is exported to the folder that it takes bundles from, is loaded aside,
checked, warmed up and then swapped in by one assignment. A request keeps the bundle that it began with.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.models.deployment import DEPLOYMENT_FILE, FOLLOW_FILE
from serving.models.folder import Stamp, stamp
from serving.models.loading import Held, Loader
from serving.models.split import in_canary
from serving.models.watcher import Watcher

Arm = Literal["live", "canary", "pinned"]
logger = logging.getLogger("recsys.serving")


@dataclass(frozen=True)
class Chosen:
    bundle: Bundle
    arm: Arm


class Models:
    def __init__(self, folder: Path, *, threads: int = 1, max_batch: int = 16, poll_s: float = 0.25) -> None:
        """Load what `folder`/deployment.json names, and watch it. Raises InputError where neither live nor previous loads.

        `max_batch`: questions that are scored at once; `poll_s`: between looks at the files, each a fraction of a millisecond.
        """
        self.folder = folder
        self.after_swap: Callable[[], None] = lambda: None  # called in the watcher's thread
        self._refused: dict[str, Any] | None = None
        self._loader = Loader(folder, threads=threads, max_batch=max_batch)
        is_done = self._attempt(self._loader.take_in)
        self._held = self._loader.held(None)
        self._since = time.time()
        self._loader.gently = True
        self._watcher = Watcher(self, poll_s, is_done=is_done)

    def choose(self, user_key: str, version: str | None) -> Chosen:
        """The bundle for a user (`user_key`: any text that stays the same for them), or the version that they asked for.

        `version`: a fingerprint, or live, previous or canary. Raises InputError, naming what there is, for others.
        """
        held = self._held
        if version is None:
            # The canary's version salts: the next canary gets other users, and all machines agree without a word.
            if held.canary is not None and in_canary(user_key, held.salt + held.canary.version, held.share):
                return Chosen(held.canary, "canary")
            return Chosen(held.live, "live")
        for place, bundle in held.places.items():
            if version in (place, bundle.version):
                return Chosen(bundle, "pinned")
        there = ", ".join(f"{bundle.version} ({place})" for place, bundle in held.places.items())
        raise InputError(f"version is {version[:40]!r}: this server has {there}")

    @property
    def live(self) -> Bundle:
        return self._held.live

    @property
    def held(self) -> Held:
        return self._held

    @property
    def ready(self) -> bool:
        """For /readyz: whether requests should come. Not before all is loaded and warm, nor once the server is going down."""
        return not self._watcher.stopped

    @property
    def status(self) -> dict[str, Any]:
        """For /info: what answers, what was refused and why, and how the following of an alias goes. Reads a small file."""
        held = self._held
        follow = self.folder / FOLLOW_FILE
        return {
            "live": held.live.version,
            "since": self._since,
            "previous": held.previous and held.previous.version,
            "canary": held.canary and {"version": held.canary.version, "share": held.share},
            "refused": self._refused,
            "follow": json.loads(follow.read_text()) if follow.exists() else None,
        }

    def close(self) -> None:
        self._watcher.stop()

    def stamps(self) -> tuple[Stamp, Stamp]:
        """For the watcher: of deployment.json, and of the folder that bundles are taken from."""
        try:
            state = (self.folder / DEPLOYMENT_FILE).stat()
        except OSError:
            return (), ()
        return ((DEPLOYMENT_FILE, state.st_mtime_ns, state.st_size, state.st_ino),), stamp(self._loader.source)

    def turn(self) -> bool:
        """For the watcher: do what the files ask for. What cannot be done is told in `status`; the old set goes on."""
        before, self._refused = self._refused, None
        done = [self._attempt(step, told=before) for step in (self._loader.take_in, self._converge)]
        return all(done)

    def _converge(self) -> None:
        held = self._loader.held(self._held)
        if held != self._held:
            if held.live is not self._held.live:
                self._since = time.time()
                logger.info("version %s is live, after %s", held.live.version, self._held.live.version)
            self._held = held
            self.after_swap()

    def _attempt(self, step: Callable[[], None], told: dict[str, Any] | None = None) -> bool:
        try:
            step()
        except Exception as error:  # a damaged bundle raises errors of ONNX Runtime, Arrow, zip and numpy, too
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._refused = {"reason": reason.partition("\n")[0], "time": time.time()}
            if told is None or told["reason"] != self._refused["reason"]:
                logger.warning("refused, what there was goes on: %s", self._refused["reason"])
            return False
        return True
