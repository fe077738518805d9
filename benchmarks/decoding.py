"""How long ONNX Runtime takes to write the next items as semantic ids, beside exact top-k, and that every answer holds.

    python -m benchmarks.decoding

One user a call on one thread, a history of 50 events, exclusions of any size; both graphs answer every request in turn. Models
are untrained but sharp, since time does not depend on what was learned; ids are random, which leaves prefixes of very different
sizes. Wall time is what a user waits; CPU time of the calling thread is free of what else the machine does. Both graphs return
as many items.
Shapes: I = rows of the item table, J = items, T = levels, E = excluded items, K = items returned.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

CASES = {"3 levels": (10_000, (32, 32, 32)), "4 levels": (10_000, (16, 16, 16, 8)), "100,000 items": (100_000, (64, 64, 64))}
HISTORY, DIM, BAR_MS = 50, 64, 5.0
NEAR = 2e-4  # scores that are no further apart may stand in either order


def answer(items: int, sizes: list[int], beam: int, requests: int, checked: int, warmup: int, seed: int) -> dict[str, Any]:
    """Milliseconds of every request, and how many answers were not what they must be."""
    import torch

    torch.set_num_threads(1)
    graphs = _graphs(items, tuple(sizes), beam, seed)
    with tempfile.TemporaryDirectory() as scratch:
        sessions = {name: _session(graph, Path(scratch) / f"{name}.onnx") for name, graph in graphs.items()}
    wall: dict[str, list[float]] = {name: [] for name in sessions}
    cpu: dict[str, list[float]] = {name: [] for name in sessions}
    answers = []
    for number in range(warmup + requests):
        given = _request(seed, number, items)
        for name, session in sessions.items():
            began, began_cpu = time.perf_counter(), time.thread_time()
            found = session.run(["item", "score"], given)
            cpu[name].append((time.thread_time() - began_cpu) * 1e3)
            wall[name].append((time.perf_counter() - began) * 1e3)
            if name == "generation" and number >= warmup:
                answers.append((number, found))
    wrong = dict.fromkeys(("not as many", "no item", "twice", "excluded", "unlike torch"), 0)
    for number, (item_1K, score_1K) in answers:  # after the clock has stopped, so that torch takes no caches from what is timed
        given = _request(seed, number, items)
        for what, is_wrong in _mistakes(item_1K[0], score_1K[0], given["exclude"], items, beam).items():
            wrong[what] += is_wrong
        if number < warmup + checked:
            wrong["unlike torch"] += not _as_torch(graphs["generation"], given, item_1K[0], score_1K[0])
    return {"wall": {n: t[warmup:] for n, t in wall.items()}, "cpu": {n: t[warmup:] for n, t in cpu.items()}, "wrong": wrong}


def _mistakes(item_K: Any, score_K: Any, exclude_1E: Any, items: int, beam: int) -> dict[str, bool]:
    import numpy as np

    from recsys.columns import FIRST_ID

    found, exclude = item_K[np.isfinite(score_K)], np.unique(exclude_1E)
    return {
        "not as many": len(found) != min(beam, items - len(exclude)),
        "no item": bool(((found < FIRST_ID) | (found >= items + FIRST_ID)).any()),
        "twice": len(np.unique(found)) < len(found),
        "excluded": bool(np.isin(found, exclude).any()),
    }


def _graphs(items: int, sizes: tuple[int, ...], beam: int, seed: int) -> dict[str, Any]:
    import numpy as np
    import torch

    from recsys.columns import FIRST_ID
    from recsys.generate.decoder import Decoder
    from recsys.generate.generator import GenerationGraph
    from recsys.generate.ids import NO_CODE, SemanticIds
    from recsys.models.retriever import RetrievalGraph
    from recsys.models.sasrec import SASRec

    torch.manual_seed(seed)
    leaves_J = np.random.default_rng(seed).choice(int(np.prod(sizes)), items, replace=False)
    code_JT = np.stack(np.unravel_index(leaves_J, sizes), axis=1)
    reserved = np.full((FIRST_ID, len(sizes)), NO_CODE)
    ids = SemanticIds(np.concatenate([reserved, code_JT]).astype(np.int32), sizes)
    item_ID, encoder = torch.randn(items + FIRST_ID, DIM) * 0.1, SASRec(dim=DIM)
    generation = GenerationGraph(encoder, Decoder(), ids, item_ID, HISTORY, beam).eval()
    with torch.no_grad():
        for score in generation.decoder.score:
            score.mul_(20)
    return {"generation": generation, "retrieval": RetrievalGraph(encoder, HISTORY, item_ID, beam).eval()}


def _session(graph: Any, path: Path) -> Any:
    import onnxruntime

    from recsys.export.graphs import export_candidates

    export_candidates(graph, HISTORY, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _request(seed: int, number: int, items: int) -> dict[str, Any]:
    """Exclusions: what was seen and, of four requests, two with a few items more, one with many, one with almost all."""
    import numpy as np

    from recsys.columns import FIRST_ID

    rng = np.random.default_rng([seed, number])
    history_1L = rng.integers(FIRST_ID, items + FIRST_ID, (1, HISTORY))
    more = [20, 20, items // 10, items - 10][rng.integers(4)]
    exclude_1E = np.concatenate([history_1L, FIRST_ID + rng.permutation(items)[None, :more]], axis=1)
    return {"history": history_1L, "length": np.array([HISTORY]), "exclude": exclude_1E}


def _as_torch(graph: Any, given: dict[str, Any], item_K: Any, score_K: Any) -> bool:
    """The same items in the same places, but where scores are too near to be told apart."""
    import numpy as np
    import torch

    with torch.no_grad():
        wanted, expected = (found[0].numpy() for found in graph(*(torch.from_numpy(given[name]) for name in given)))
    there_K = np.isfinite(expected)
    if not (np.isfinite(score_K) == there_K).all() or not np.allclose(score_K[there_K], expected[there_K], atol=NEAR):
        return False
    return all(abs(expected[np.flatnonzero(wanted == item)] - expected[place]).min(initial=np.inf) <= NEAR
               for place, item in enumerate(item_K[there_K]))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--beam", type=int, default=20)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--checked", type=int, default=1000, help="of these, held against torch as well")
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    runs = {
        name: measure.call(
            "benchmarks.decoding", "answer", 1, items=items, sizes=sizes, beam=args.beam, requests=args.requests,
            checked=args.checked, warmup=args.warmup, seed=args.seed,
        )
        for name, (items, sizes) in CASES.items()
    }  # fmt: skip
    facts = {name: _facts(run.result) for name, run in runs.items()}
    slowest = max(facts[name]["generation"]["p99_ms"] for name in ("3 levels", "4 levels"))
    measure.report(
        "decoding",
        f"beam {args.beam}, one user a call, one thread: p99 {slowest:.2f} ms over 10,000 items (at most {BAR_MS:g}), "
        f"{sum(sum(each['wrong'].values()) for each in facts.values())} wrong of {args.requests * len(runs)} answers",
        ["ids", "items", "graph", "p50 ms", "p99 ms", "CPU p50", "CPU p99", "x retrieval"],
        [
            [
                " x ".join(map(str, CASES[name][1])), f"{CASES[name][0]:,}", graph,
                *(f"{each[graph][key]:.2f}" for key in ("p50_ms", "p99_ms", "p50_cpu_ms", "p99_cpu_ms")),
                f"{each['ratio']:.2f}" if graph == "generation" else "",
            ]
            for name, each in facts.items()
            for graph in ("generation", "retrieval")
        ],
        {
            "beam": args.beam, "requests": args.requests, "bar_ms": BAR_MS, "cases": facts,
            "peak_mib": {name: run.peak_mib for name, run in runs.items()},
        },
    )  # fmt: skip


def _facts(result: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    facts: dict[str, Any] = {"wrong": result["wrong"]}
    for graph in ("generation", "retrieval"):
        facts[graph] = {
            f"p{share}_{key}": round(float(np.percentile(result[kind][graph], share)), 3)
            for kind, key in (("wall", "ms"), ("cpu", "cpu_ms"))
            for share in (50, 99)
        }
    facts["ratio"] = round(facts["generation"]["p50_cpu_ms"] / facts["retrieval"]["p50_cpu_ms"], 3)
    return facts


if __name__ == "__main__":
    main()
