"""The store that the settings name."""

from recsys.errors import InputError
from serving.settings import Settings
from serving.state.sqlite import SQLiteStore
from serving.state.store import Store

STATE_FILE = "state.db"


def open_store(settings: Settings) -> Store:
    """Raises InputError for a store that can never work; a Redis server that is away may come back."""
    if settings.state == "sqlite":
        return SQLiteStore(settings.live / STATE_FILE, max_events=settings.max_events, ttl_s=settings.ttl_s)
    if not settings.state.startswith(("redis://", "rediss://", "unix://")):
        raise InputError("state is neither `sqlite` nor the url of a Redis server: write sqlite or redis://host:6379/0")
    from serving.state.redis import RedisStore  # its import takes a tenth of a second

    return RedisStore(
        settings.state, max_events=settings.max_events, ttl_s=settings.ttl_s, timeout_s=settings.state_timeout_ms / 1000
    )
