"""What would keep every worker from starting, looked at before there is one: BentoML would start them again and again."""

import asyncio

from recsys.errors import InputError
from serving.api.keys import read_keys
from serving.catalogue.catalogue import Catalogue
from serving.journal.journal import Journal
from serving.models.deployment import LOCK_FILE
from serving.settings import Settings
from serving.state.open import open_store


def check_start(settings: Settings) -> None:
    """Raise InputError for a folder, catalogue, journal, state or keys that cannot be used. A Redis server may be away."""
    try:
        settings.live.mkdir(parents=True, exist_ok=True)
        (settings.live / LOCK_FILE).open("a").close()
    except OSError as error:
        raise InputError(
            f"{settings.live} cannot be the server's folder ({error.strerror}): make it writable, or name another as `live`"
        ) from error
    Catalogue(settings.catalogue)
    if settings.keys:
        read_keys(settings.live)
    if settings.journal:
        Journal(settings.live / "journal").close()
    asyncio.run(_open_state(settings))


async def _open_state(settings: Settings) -> None:
    await open_store(settings).close()
