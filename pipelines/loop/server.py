"""The endpoint of a loop: a real server on 127.0.0.1 that follows the champion of the loop's own model store."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.follow import Follower
from recsys.errors import InputError
from serving.client import Client
from serving.models.deployment import read
from serving.run import free_port, start_background, stop, wait_ready
from serving.settings import Settings

POLL_S = 0.05
LIVE_WITHIN_S = 60


@dataclass(frozen=True)
class Endpoint:
    """A server that is up."""

    client: Client
    follower: Follower

    def take_champion(self) -> str:
        """Let the server take the champion, and return its version once it answers with it. Raises InputError."""
        if not self.follower.look():
            raise InputError(f"the endpoint cannot take the champion: {self.follower.last_error}")
        wanted = read(self.follower.live).live.version
        deadline = time.monotonic() + LIVE_WITHIN_S
        while (info := self.client.info()).version != wanted:
            if time.monotonic() > deadline:
                raise InputError(
                    f"{self.client.url} did not take version {wanted} within {LIVE_WITHIN_S} s ({info.refused or 'no reason'})"
                )
            time.sleep(POLL_S)
        return info.version


@contextmanager
def endpoint(model: str, live: Path, *, uri: str) -> Iterator[Endpoint]:
    """Serve the champion of `model`; the folder `live` keeps state and journal for the next start. Raises InputError."""
    follower = Follower(live, model, "champion", uri=uri)
    if not follower.look():
        raise InputError(f"there is no model to serve: {follower.last_error}")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="recsys-loop-") as scratch:
        process = start_background(
            Settings(live=live.absolute(), page=False, clock="requests"), port=port, scratch=Path(scratch)
        )
        client = Client(f"http://127.0.0.1:{port}")
        try:
            wait_ready(client.url, process=process, log=Path(scratch) / "log")
            yield Endpoint(client, follower)
        finally:
            client.close()
            stop(process)
