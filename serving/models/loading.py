"""From deployment.json to bundles in memory: what is there is not loaded again, what is new is checked and warmed up."""

import logging
from dataclasses import dataclass
from pathlib import Path

from recsys.artefact import MANIFEST, read_manifest
from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.models.deployment import Canary, Deployment, Placed, edit, goes_live, read
from serving.models.folder import copy_in, prune, taken_in
from serving.models.warm import warm

logger = logging.getLogger("recsys.serving")


@dataclass(frozen=True)
class Held:
    """One consistent set; a swap replaces it as a whole."""

    live: Bundle
    previous: Bundle | None = None
    canary: Bundle | None = None
    share: float = 0.0
    salt: str = ""

    @property
    def places(self) -> dict[str, Bundle]:
        found = {"live": self.live, "previous": self.previous, "canary": self.canary}
        return {name: bundle for name, bundle in found.items() if bundle is not None}


class Loader:
    def __init__(self, folder: Path, *, threads: int, max_batch: int) -> None:
        self.folder, self.threads, self.max_batch = folder, threads, max_batch
        self.source: Path | None = None  # where new bundles come from
        self.gently = False  # whether a server answers meanwhile
        self._loaded: dict[str, Bundle] = {}

    def take_in(self) -> None:
        """Make what lies in the source folder live, once: copied into the models folder and loaded first. Raises InputError."""
        now = read(self.folder)
        if any(each is not None and each.version is None for each in (now.live, now.previous, now.canary)):
            now = edit(self.folder, lambda old: taken_in(old, lambda source: copy_in(source, self.folder)))
        self.source = now.source
        if now.source is None or not (now.source / MANIFEST).is_file():  # an export may be between its two renames
            return
        if read_manifest(now.source, "bundle")["fingerprint"] == now.taken:
            return
        placed = copy_in(now.source, self.folder)
        self.bundle(placed)
        taken = edit(self.folder, lambda old: goes_live(old, placed).model_copy(update={"taken": placed.version}))
        prune(self.folder, taken)

    def held(self, before: Held | None) -> Held:
        """What the deployment asks for. Raises InputError where that is not to be had.

        Without a set to go on with, the previous version stands in for a live one that does not load, and the live one for a
        canary.
        """
        now = read(self.folder)
        previous = (
            None if now.previous is None else self._optional(now.previous, "the previous version is not there to go back to")
        )
        try:
            live = self.bundle(now.live)
        except Exception:
            if before is not None or previous is None:
                raise
            logger.exception("the live version does not load: the previous one answers")
            live, previous = previous, None
        canary = None if now.canary is None else self._canary(now.canary, before)
        share = 0.0 if now.canary is None or canary is None else now.canary.share
        held = Held(live, previous, canary, share, now.salt)
        self._loaded = {bundle.version: bundle for bundle in held.places.values()}  # others go when their last request ends
        return held

    def bundle(self, placed: Placed) -> Bundle:
        """Checked and warm. Raises InputError, or what a damaged file makes its reader raise."""
        if placed.version is not None and placed.version in self._loaded:
            return self._loaded[placed.version]
        bundle = Bundle.load(placed.folder, self.threads)
        if placed.version not in (None, bundle.version):
            raise InputError(f"{placed.folder} holds version {bundle.version} where {placed.version} should be: deploy another")
        warm(bundle, max_batch=self.max_batch, gently=self.gently)
        self._loaded[bundle.version] = bundle
        return bundle

    def _canary(self, canary: Canary, before: Held | None) -> Bundle | None:
        return self.bundle(canary) if before is not None else self._optional(canary, "the canary does not load, nobody gets it")

    def _optional(self, placed: Placed, what: str) -> Bundle | None:
        try:
            return self.bundle(placed)
        except Exception as error:
            logger.warning("%s: %s", what, error)
            return None


def check(deployment: Deployment) -> None:
    """Raise InputError unless a process that starts now finds a bundle that loads."""
    try:
        Bundle.load(deployment.live.folder)
    except InputError:
        if deployment.previous is None:
            raise
        Bundle.load(deployment.previous.folder)
