"""What do rerankers cost on the way of a request?

    python -m benchmarks.rerank
    python -m benchmarks.rerank --candidates 1000 --k 50

Random candidates with four tasks and vectors of 64 numbers, one thread; the median and the 99th percentile of single calls, and
what the layout of JointRank's blocks costs once for each number of candidates. Bars for 200 candidates and k 10: mmr and quotas
0.3 ms, jointrank 1 ms.
"""

import argparse
import os
import time

import numpy as np

from benchmarks.table import publish
from recsys.columns import FIRST_ID
from recsys.rerank import MMR, Explore, JointRank, Quotas, Slate
from recsys.rerank.blocks import meetings

CALLS, CATEGORIES, DIM = 1000, 20, 64
BARS_MS = {"mmr": 0.3, "quotas": 0.3, "jointrank": 1.0}
RERANKERS = {
    "mmr": MMR(),
    "quotas": Quotas(at_least={"3": 1}, shares={"5": 0.2}),
    "jointrank": JointRank(),
    "jointrank, win_rate": JointRank(aggregate="win_rate"),
    "jointrank, latin": JointRank(design="latin"),
    "explore": Explore(),
    "explore, one slot": Explore(slots=(4,)),
}


def slate(candidates: int, rng: np.random.Generator) -> Slate:
    weight_T = np.array([1.0, 2.0, 4.0, 8.0])
    probability_KT = (rng.random((candidates, 4)) * [0.2, 0.1, 0.05, 0.01]).astype(np.float32)
    order_K = np.argsort(-(probability_KT @ weight_T), kind="stable")
    vector_KD = rng.normal(size=(candidates, DIM)).astype(np.float32)
    vector_KD /= np.linalg.norm(vector_KD, axis=1, keepdims=True)
    category_K = rng.integers(FIRST_ID, FIRST_ID + CATEGORIES, candidates)
    code_of = {str(code): code for code in range(FIRST_ID, FIRST_ID + CATEGORIES)}
    item_K, probability_KT = np.arange(FIRST_ID, FIRST_ID + candidates), probability_KT[order_K]
    return Slate(item_K, probability_KT @ weight_T, probability_KT, weight_T, vector_KD, category_K, code_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--k", type=int, default=10)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    given, found = slate(options.candidates, rng), {}
    for name, reranker in RERANKERS.items():
        took_ms = []
        for _ in range(CALLS + CALLS // 10):
            began_s = time.perf_counter()
            reranker(given, options.k, rng)
            took_ms.append((time.perf_counter() - began_s) * 1000)
        p50_ms, p99_ms = np.percentile(took_ms[CALLS // 10 :], [50, 99])
        found[name] = {"p50_ms": float(p50_ms), "p99_ms": float(p99_ms), "bar_ms": BARS_MS.get(name)}
    began_s = time.perf_counter()
    meetings("equi_replicate", options.candidates, block=20, repeats=4, seed=0)
    layout_ms = (time.perf_counter() - began_s) * 1000
    rows = [
        [name, f"{each['p50_ms']:.3f}", f"{each['p99_ms']:.3f}", "" if each["bar_ms"] is None else f"{each['bar_ms']:.1f}"]
        for name, each in found.items()
    ]
    title = f"Milliseconds of a call: {options.candidates} candidates, k {options.k}; a new layout of blocks {layout_ms:.2f}"
    facts = {"candidates": options.candidates, "k": options.k, "layout_ms": layout_ms, "calls": CALLS, "found": found}
    publish(
        "rerank",
        [(title, ["reranker", "p50", "p99", "bar of p50"], rows)],
        facts | {"threads": os.environ.get("OMP_NUM_THREADS")},
    )


if __name__ == "__main__":
    main()
