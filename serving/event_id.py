"""Ids of events whose sender gave them none."""

import time
import uuid


def event_id() -> str:
    """One that no other event has. Of two made by one process the later one sorts behind.

    A user's events of one millisecond are in the order of their ids, and those of one post often have the same time.
    """
    return f"{time.time_ns():016x}-{uuid.uuid4().hex[:16]}"
