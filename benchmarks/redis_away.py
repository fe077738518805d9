"""Redis killed and started again, empty, while lists are asked for and events posted: do answers go on, does the state return?

`python -m benchmarks.redis_away --rounds 10`. The exit status is 1 where a request failed, a list was short, an answer while
Redis was away did not say so, or the state lacked an event at the end.
"""

import argparse
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.crash import in_journal, in_state
from benchmarks.measure import report
from benchmarks.redis import Server, running_redis
from benchmarks.serving_bundle import small_bundle
from serving.run import running_service
from serving.settings import Settings

K, USERS = 5, 20
SETTLE_S = 0.25  # requests that were on their way when Redis came or went
HEAL_S = 10


@dataclass
class Load:
    """Threads that ask for a list and post an event, in turn. All times are of `time.monotonic`."""

    url: str
    answers: list[tuple[float, float, int, bool]] = field(default_factory=list)  # begun, seconds, items, flagged
    accepted: list[int] = field(default_factory=list)  # of each post
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            user, began = f"u{number % USERS}", time.monotonic()
            try:
                found = self._send("/recommend", {"user_id": user, "k": K})
                flagged = "state_unavailable" in found["flags"]
                self.answers.append((began, time.monotonic() - began, len(found["items"]), flagged))
                event = {"id": f"{thread}-{number}", "user_id": user, "item_id": f"item-{number % 40}"}
                self.accepted.append(self._send("/events", {"events": [event]})["accepted"])
            except OSError as error:
                self.failed.append(str(error))
            number += 1

    def stop(self) -> None:
        self._stop.set()

    def _send(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=10) as response:
            found: dict[str, Any] = json.load(response)
        return found


@dataclass(frozen=True)
class Away:
    """A time when Redis was away, and when answers had the state again."""

    gone: float
    back: float
    healed: float


def go_away(load: Load, redis: Server, *, up_s: float, away_s: float) -> Away:
    """Let Redis be there for a while, kill it, start it empty, and wait until answers have no flag."""
    time.sleep(up_s)
    redis.kill()
    gone = time.monotonic()
    time.sleep(away_s)
    back = time.monotonic()
    redis.start()
    while time.monotonic() < back + HEAL_S and load.answers[-1][3]:
        time.sleep(0.02)
    return Away(gone, back, time.monotonic())


def under_load(bundle: Path, redis: Server, *, rounds: int, up_s: float, away_s: float, workers: int = 1) -> dict[str, Any]:
    """What became of the requests and of the state."""
    with TemporaryDirectory(prefix="recsys-away-") as folder:
        live = Path(folder) / "live"
        told: dict[str, Any] = {"state": redis.url, "state_timeout_ms": 200, "max_events": 100_000}
        with running_service(bundle, live=live, workers=workers, **told) as url:
            load = Load(url)
            threads = [threading.Thread(target=load.run, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            times = [go_away(load, redis, up_s=up_s, away_s=away_s) for _ in range(rounds)]
            time.sleep(up_s)
            load.stop()
            for thread in threads:
                thread.join(30)
            kept = in_state(Settings(live=live, **(told | {"state_timeout_ms": 2000})))
        journal = in_journal(live)
    return _told(load, times) | {"state_lacks": len(set(journal) - set(kept)), "state_twice": _twice(kept)}


def _twice(counts: dict[str, int]) -> int:
    return sum(count > 1 for count in counts.values())


def _told(load: Load, times: list[Away]) -> dict[str, Any]:
    away = [each for each in load.answers if any(t.gone + SETTLE_S < each[0] and each[0] + each[1] < t.back for t in times)]
    edges = [
        (0.0, times[0].gone),
        *((a.healed, b.gone) for a, b in pairwise(times)),
        (times[-1].healed, 1e12),
    ]
    there = [each for each in load.answers if any(a + SETTLE_S < each[0] and each[0] + each[1] < b for a, b in edges)]
    ms = {name: np.array([each[1] * 1000 for each in part] or [np.nan]) for name, part in (("away", away), ("there", there))}
    return {
        "answers": len(load.answers), "failed": len(load.failed), "short": sum(each[2] != K for each in load.answers),
        "away": len(away), "away_flagged": sum(each[3] for each in away),
        "there": len(there), "there_flagged": sum(each[3] for each in there),
        "posted": len(load.accepted), "accepted": sum(load.accepted),
        "healed_s": round(max(t.healed - t.back for t in times), 2),
        **{f"{name}_p{q}_ms": round(float(np.percentile(part, q)), 1) for name, part in ms.items() for q in (50, 99)},
    }  # fmt: skip


def is_good(found: dict[str, Any]) -> bool:
    return (
        not any(found[name] for name in ("failed", "short", "there_flagged", "state_lacks", "state_twice"))
        and found["away_flagged"] == found["away"] > 0
        and found["posted"] == found["accepted"]
        and found["healed_s"] < HEAL_S
    )


def main(rounds: int, workers: int, bundle: Path | None) -> None:
    with TemporaryDirectory(prefix="recsys-away-") as scratch, running_redis(Path(scratch) / "redis") as redis:
        bundle = bundle or small_bundle(Path(scratch) / "bundle")
        found = under_load(bundle, redis, rounds=rounds, up_s=2, away_s=2, workers=workers)
    rows = [[name, str(value)] for name, value in found.items()]
    report("redis_away", f"Redis killed and started empty {rounds} times under load", ["what", "value"], rows, found)
    if not is_good(found):
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redis_away", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--bundle", type=Path, help="the bundle that is served; left out: a small one")
    asked = parser.parse_args()
    main(asked.rounds, asked.workers, asked.bundle)
