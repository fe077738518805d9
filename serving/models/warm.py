"""A bundle answers some requests before the first real one: the first run of a graph at a batch size allocates its memory."""

import time

from recsys.columns import FIRST_ID, USER_ID
from serving.bundle.bundle import Bundle
from serving.cascade.asked import Asked, resolve
from serving.cascade.score import score
from serving.schema import Query
from serving.state.store import Live


def warm(bundle: Bundle, *, max_batch: int, gently: bool = False) -> None:
    """Score batches of every size up to `max_batch`, of users of the bundle, through the code that answers requests.

    `gently`: rest after each as long as it took, where a server answers meanwhile.
    """
    asked = _questions(bundle, max_batch)
    for size in range(1, max_batch + 1):
        began = time.perf_counter()
        score(bundle, [(each, 1) for each in asked[:size]])
        if gently:
            time.sleep(time.perf_counter() - began)


def _questions(bundle: Bundle, count: int) -> list[Asked]:
    """Users spread over the bundle; where it has none, somebody without a history."""
    rows = range(FIRST_ID, len(bundle.users))
    users = [str(bundle.users[USER_ID][rows[place * len(rows) // count]].as_py()) for place in range(count)] if rows else []
    return [resolve(bundle, Query(user_id=user), Live()) for user in users or ["nobody"] * count]
