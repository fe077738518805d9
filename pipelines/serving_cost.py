"""What one list of a bundle costs: time on one thread, in this process, and space on disk."""

import time
from pathlib import Path

import numpy as np

from recsys.columns import FIRST_ID, LENGTH, USER_ID
from serving.bundle.bundle import Bundle
from serving.recommend import recommend
from serving.schema import Query

WARM_UP, REQUESTS, K = 20, 200, 10


def serving_cost(folder: Path, *, rng: np.random.Generator) -> dict[str, float]:
    """Percentiles of the time of one list for users of the log, and the size of the folder.

    It opens the bundle as a server does, so its hashes and parity are checked on the way. HTTP is not measured: what it adds
    belongs to the server. Times depend on the machine and on what else it does.
    """
    bundle = Bundle.load(folder, threads=1)
    queries = known_queries(bundle, WARM_UP + REQUESTS, K, rng)
    time_ms_R = []
    for query in queries:
        began_s = time.perf_counter()
        recommend(bundle, query)
        time_ms_R.append((time.perf_counter() - began_s) * 1000)
    p50_ms, p99_ms = np.percentile(time_ms_R[WARM_UP:], [50, 99])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"latency_p50_ms": float(p50_ms), "latency_p99_ms": float(p99_ms), "bundle_mib": size / 2**20}


def known_queries(bundle: Bundle, count: int, k: int, rng: np.random.Generator) -> list[Query]:
    """Of users who did something, drawn with replacement; one without a history where nobody did."""
    known_U = np.flatnonzero(bundle.users[LENGTH].to_numpy()[FIRST_ID:] > 0) + FIRST_ID
    k = min(k, bundle.facts.num_items - FIRST_ID, bundle.facts.num_candidates)
    if not len(known_U):
        return [Query(history=[], k=k)] * count
    return [Query(user_id=bundle.users[USER_ID][int(user)].as_py(), k=k) for user in rng.choice(known_U, count)]
