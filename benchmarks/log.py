"""The raw log of the data benchmarks: sessions of users, Zipf items, string ids. Shapes: S = sessions, E = events."""

from pathlib import Path
from typing import Any

from benchmarks import measure

FIRST_MS = 1_700_000_000_000
SPAN_DAYS = 90
DAY_MS = 86_400_000
EVENTS_PER_USER, EVENTS_PER_ITEM, SESSION_EVENTS = 60, 100, 8  # means; a session has at least two
STEP_MS = 20_000  # between two events of a session: one to two of it at most, 20 seconds in the mean
EVENT_SHARES = {"view": 0.8, "click": 0.14, "cart": 0.04, "buy": 0.02}


def log(folder: Path, rows: int, seed: int, threads: int) -> Path:
    """The folder with the log of `rows` events, made where it is not there yet."""
    raw = folder / f"log-{rows}-{seed}"
    if not (raw / "events.parquet").exists():
        raw.mkdir(parents=True, exist_ok=True)
        measure.call("benchmarks.log", "make", threads, path=raw / "events.parquet", rows=rows, seed=seed)
    return raw


def make(path: str, rows: int, seed: int) -> None:
    """Write the log in order of time. Every event has a millisecond of its own, so that no order depends on a rule for ties."""
    import numpy as np
    import polars as pl

    random = np.random.default_rng(seed)
    users, items = max(10, rows // EVENTS_PER_USER), max(10, rows // EVENTS_PER_ITEM)
    sessions = max(1, rows // (SESSION_EVENTS - 2))  # more than enough; surplus events are cut off below
    events_S = 1 + random.geometric(1 / (SESSION_EVENTS - 1), sessions)
    starts_S = FIRST_MS + random.integers(0, SPAN_DAYS * DAY_MS, sessions)
    user_S = _draw(random.lognormal(sigma=1.2, size=users), sessions, random)
    session_E = np.repeat(np.arange(sessions), events_S)[:rows]
    first_E = (np.cumsum(events_S) - events_S)[session_E]
    time_E = starts_S[session_E] + (np.arange(len(session_E)) - first_E) * STEP_MS + random.integers(0, STEP_MS, len(session_E))
    order_E = time_E.argsort(kind="stable")
    place_E = np.arange(len(order_E))
    item_E = _draw(1 / np.arange(1, items + 1), len(order_E), random)
    event_E = random.choice(len(EVENT_SHARES), len(order_E), p=list(EVENT_SHARES.values()))
    partial = Path(path).with_suffix(".partial")
    pl.DataFrame(
        {
            "user_id": _names("user-", 9, users, random).gather(user_S[session_E[order_E]]),
            "item_id": _names("item-", 8, items, random).gather(item_E),
            "timestamp": pl.Series(np.maximum.accumulate(time_E[order_E] - place_E) + place_E).cast(pl.Datetime("ms")),
            "event": pl.Series(list(EVENT_SHARES)).gather(event_E),
        }
    ).write_parquet(partial, compression="zstd", row_group_size=1_000_000)
    partial.rename(path)


def _draw(weights: Any, size: int, random: Any) -> Any:
    """Numbers of entries, drawn in proportion to their weights."""
    share = (weights / weights.sum()).cumsum()
    return share.searchsorted(random.random(size)).clip(max=len(weights) - 1)


def _names(prefix: str, digits: int, number: int, random: Any) -> Any:
    """Ids whose order says nothing about how frequent they are."""
    import polars as pl

    return pl.Series(random.permutation(number)).cast(pl.String).str.zfill(digits).str.replace("^", prefix)
