"""How long it takes to judge a retriever on the whole catalogue, with its floors, and whether the lists are exact.

    python -m benchmarks.evaluation [--data ../shared/data/ml-1m] [--users 100000]

Parts, each in a process of its own: an evaluation of the size of ml-1m with the shipped encoder (its own histories with
`--data`); users x a million items with the three floors; top-k beside two plain ways, on the same vectors. Models are
untrained, as time does not depend on what was learned. CPU seconds stand beside wall time, for machines that do other work.
Shapes: U = users, E = events, I = rows of the item table, D = width, K = list length.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from recsys.evaluate import Judged
    from recsys.jagged import Jagged

DIM, K, KS = 64, 100, [10, 50, 100]
ML_1M_USERS, ML_1M_ITEMS, ML_1M_HISTORY, ML_1M_EVENTS = 6_040, 3_706, 200, 165.6
MANY_ITEMS, MANY_EVENTS, MANY_HISTORY = 1_000_000, 50.0, 50
BAR_ML_1M_S, BAR_MANY_S = 3.0, 1200.0
NEAR = 1e-5  # of scores about 10: lists may differ where two are no further apart


class Clock:
    """Wall and CPU seconds of the parts of a run."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, float]] = {}
        self.began = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        wall, cpu = self.began
        self.began = time.perf_counter(), time.process_time()
        self.parts[name] = {"wall_s": round(self.began[0] - wall, 3), "cpu_s": round(self.began[1] - cpu, 3)}
        print(f"{name}: {self.parts[name]}", file=sys.stderr)


def ml_1m(data: str | None, seed: int, repeats: int) -> dict[str, Any]:
    """The whole evaluation, and apart from it the encoding and the ranking; the quickest of `repeats` of each."""
    import torch

    from recsys import config, evaluate
    from recsys.evaluate.lists import in_threads, user_vectors
    from recsys.evaluate.top_k import TopK
    from recsys.models.retriever import RetrievalGraph

    torch.manual_seed(seed)
    shipped = config.load(Path(__file__).parents[1] / "pipelines/configs/ml-1m.yaml").retriever
    assert shipped is not None
    judged, rows = _read(Path(data)) if data else (_made(ML_1M_USERS, ML_1M_ITEMS, ML_1M_EVENTS, seed), ML_1M_ITEMS + 2)
    encoder = shipped.encoder
    graph = RetrievalGraph(encoder, ML_1M_HISTORY, torch.randn(rows, encoder.dim) * 0.1, K).eval()
    order = judged.history.lengths.clip(max=ML_1M_HISTORY).argsort(kind="stable")
    parts = [judged.take(order[begin : begin + 256]) for begin in range(0, len(order), 256)]
    runs = []
    for _ in range(repeats):
        clock = Clock()
        item_UK = evaluate.recommend(graph, judged, k=K, max_history=ML_1M_HISTORY, filter_seen=True)
        clock.lap("lists")
        evaluate.retrieval_metrics(item_UK, judged, KS, rows)
        clock.lap("metrics")
        vectors = list(in_threads(lambda part: user_vectors(graph, part, ML_1M_HISTORY), parts, on_cpu=True))
        clock.lap("of it encoding")
        top, pairs = TopK(graph.scored_ID), list(zip(vectors, parts, strict=True))

        def ranked(pair: tuple["Tensor", "Judged"], top: TopK = top) -> tuple["Tensor", "Tensor"]:
            return top(pair[0], K, pair[1].history)

        list(in_threads(ranked, pairs, on_cpu=True))
        clock.lap("of it ranking")
        runs.append(clock.parts)
    best = {name: min((run[name] for run in runs), key=lambda part: part["wall_s"]) for name in runs[0]}
    return {"users": len(order), "items": rows - 2, "events": len(judged.history.item_E), "parts": best}


def many(users: int, items: int, seed: int) -> dict[str, Any]:
    """Lists of the model and of each floor, and their metrics."""
    import torch

    from recsys import evaluate
    from recsys.metrics import floor
    from recsys.models.retriever import RetrievalGraph
    from recsys.models.sasrec import SASRec

    torch.manual_seed(seed)
    judged = _made(users, items, MANY_EVENTS, seed)
    rows = items + 2
    graph = RetrievalGraph(SASRec(dim=DIM), MANY_HISTORY, torch.randn(rows, DIM) * 0.1, K).eval()
    clock = Clock()
    lists = {"model": evaluate.recommend(graph, judged, k=K, max_history=MANY_HISTORY, filter_seen=True)}
    clock.lap("model")
    fits = {"popularity": floor.Popularity.fit, "item-knn": floor.ItemKNN.fit, "transitions": floor.Transitions.fit}
    for name, fit in fits.items():
        scorer = fit(judged.history, rows, **({"last": 3} if name == "item-knn" else {}))  # type: ignore[operator]
        lists[name] = floor.recommend(scorer, judged.history, rows, K, filter_seen=True)
        clock.lap(name)
    for item_UK in lists.values():
        evaluate.retrieval_metrics(item_UK, judged, KS, rows)
    clock.lap("metrics")
    return {"users": users, "items": items, "events": len(judged.history.item_E), "parts": clock.parts}


def ratios(users: int, items: int, repeats: int, seed: int) -> dict[str, Any]:
    """The least seconds of ours, of plain torch in batches of 256 and of faiss, in turn; and in how many users' lists an item
    stands in another place although its score is not too near to that of the item there. Seen items are left out where the
    name says so."""
    import faiss
    import numpy as np
    import torch

    from recsys.evaluate.lists import in_threads
    from recsys.evaluate.top_k import TopK

    torch.manual_seed(seed)
    judged = _made(users, items, MANY_EVENTS, seed)
    user_UD, item_ID = torch.randn(users, DIM), torch.randn(items + 2, DIM)
    faiss.omp_set_num_threads(torch.get_num_threads())
    parts = [(user_UD[begin : begin + 256], judged.history.slice(begin, begin + 256)) for begin in range(0, users, 256)]

    def ours(seen: bool) -> "np.ndarray":
        top = TopK(item_ID)
        found = in_threads(lambda part: top(part[0], K, part[1] if seen else None)[0], parts, on_cpu=True)
        return torch.cat(list(found)).numpy()

    def plain() -> "np.ndarray":
        return torch.cat([_plain(user_BD, item_ID, history) for user_BD, history in parts]).numpy()

    def by_faiss() -> "np.ndarray":
        index = faiss.IndexFlatIP(DIM)
        index.add(item_ID[2:].numpy())
        return np.asarray(index.search(user_UD.numpy(), K)[1]) + 2

    ways = {"ours, seen": lambda: ours(True), "torch, seen": plain, "ours": lambda: ours(False), "faiss": by_faiss}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - began)
    differ = {
        other: _differ(found[mine], found[other], user_UD.numpy(), item_ID.numpy())
        for mine, other in (("ours, seen", "torch, seen"), ("ours", "faiss"))
    }
    return {
        "users": users,
        "items": items,
        "seconds": {name: round(min(s), 3) for name, s in seconds.items()},
        "differ": differ,
    }


def _plain(user_BD: "Tensor", item_ID: "Tensor", history: Any) -> "Tensor":
    import torch

    from recsys.evaluate.lists import padded

    score_BI = user_BD @ item_ID.T
    score_BI[:, :2] = -torch.inf
    return score_BI.scatter(1, padded(history)[0], -torch.inf).topk(K, dim=1).indices


def _differ(one_UK: "np.ndarray", other_UK: "np.ndarray", user_UD: "np.ndarray", item_ID: "np.ndarray") -> int:
    import numpy as np

    user_N, place_N = np.nonzero(one_UK != other_UK)
    one_N, other_N = (
        np.einsum("nd,nd->n", user_UD[user_N].astype(np.float64), item_ID[item_UK[user_N, place_N]].astype(np.float64))
        for item_UK in (one_UK, other_UK)
    )
    return len(np.unique(user_N[np.abs(one_N - other_N) > NEAR]))


def _made(users: int, items: int, events: float, seed: int) -> "Judged":
    """Histories of lognormal length, from 3, over items of a popularity that falls as 1 / (rank + 100), ids in any order."""
    import numpy as np

    from recsys.jagged import Jagged

    rng = np.random.default_rng(seed)
    length_U = np.maximum(3, rng.lognormal(np.log(events) - 0.5, 1.0, users).astype(np.int64))
    share_I = np.cumsum(1 / (np.arange(items) + 100))
    drawn_E = np.searchsorted(share_I, rng.random(length_U.sum() + users) * share_I[-1])
    item_E = (2 + rng.permutation(items))[drawn_E]
    return _judged(Jagged(item_E[:-users], np.concatenate([[0], np.cumsum(length_U)])), item_E[-users:])


def _read(folder: Path) -> tuple["Judged", int]:
    """Leave-one-out histories of ml-1m, and the rows of its item table."""
    import numpy as np
    import polars as pl

    from recsys.jagged import Jagged

    events = pl.read_parquet(folder / "ratings.parquet", columns=["user_id", "movie_id", "timestamp"])
    events = events.sort("user_id", "timestamp", maintain_order=True)
    item_E = np.unique(events["movie_id"].to_numpy(), return_inverse=True)[1] + 2
    count_U = np.unique(events["user_id"].to_numpy(), return_counts=True)[1]
    timelines = Jagged(item_E, np.concatenate([[0], np.cumsum(count_U)]))
    return _judged(timelines.drop_last(1), timelines.last(1).item_E), int(item_E.max()) + 1


def _judged(history: "Jagged", target_U: "np.ndarray") -> "Judged":
    """One target each; an hour between two events."""
    import numpy as np

    from recsys.evaluate import Judged
    from recsys.jagged import Jagged, ranges

    length_U = history.lengths + 1
    hour_E = ranges(np.zeros(len(history), np.int64), length_U)
    time_ms = Jagged(hour_E * 3_600_000, np.concatenate([[0], np.cumsum(length_U)]))
    return Judged(np.arange(len(history)), history, Jagged(target_U, np.arange(len(history) + 1)), time_ms)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of ml-1m, for its own histories; without it they are made")
    parser.add_argument("--users", type=int, default=5_000, help="of the million items; the bar is for 100,000")
    parser.add_argument("--items", type=int, default=MANY_ITEMS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=("ml-1m", "ratios", "many"), default=["ml-1m", "ratios", "many"])
    args = parser.parse_args()
    measure.stop_without("faiss")
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "ml-1m": ("ml_1m", {"data": args.data and args.data.resolve(), "repeats": args.repeats}),
        "ratios, 3,706 items": ("ratios", {"users": 6_040, "items": ML_1M_ITEMS, "repeats": args.repeats}),
        "ratios, many items": ("ratios", {"users": 1_024, "items": args.items, "repeats": args.repeats}),
        "many": ("many", {"users": args.users, "items": args.items}),
    }
    facts: dict[str, Any] = {"threads": args.threads, "data": str(args.data or "made"), "k": K}
    rows = []
    for name, (function, arguments) in cases.items():
        if name.split(",")[0] not in args.parts:
            continue
        run = measure.call("benchmarks.evaluation", function, args.threads, seed=args.seed, **arguments)
        facts[name] = {**run.result, "peak_mib": run.peak_mib}
        rows += _rows(name, facts[name])
    measure.report("evaluation", _title(facts), ["part", "users", "items", "of it", "wall s", "CPU s", "peak MiB"], rows, facts)


def _rows(name: str, found: dict[str, Any]) -> list[list[str]]:
    head = [name, f"{found['users']:,}", f"{found['items']:,}"]
    if "parts" in found:
        lines = [[part, f"{s['wall_s']:.2f}", f"{s['cpu_s']:.2f}"] for part, s in found["parts"].items()]
    else:
        lines = [
            [way + (f" ({found['differ'][way]} differ)" if way in found["differ"] else ""), f"{seconds:.2f}", ""]
            for way, seconds in found["seconds"].items()
        ]
    return [[*head, *line, f"{found['peak_mib']:,}"] for line in lines]


def _title(facts: dict[str, Any]) -> str:
    told = []
    if "ml-1m" in facts:
        parts = facts["ml-1m"]["parts"]
        told.append(f"ml-1m in {parts['lists']['wall_s'] + parts['metrics']['wall_s']:.2f} s (at most {BAR_ML_1M_S:g})")
    if "many" in facts:
        spent = sum(part["wall_s"] for part in facts["many"]["parts"].values())
        told.append(f"{facts['many']['users']:,} users x {facts['many']['items']:,} items in {spent / 60:.1f} minutes"
                    f" (100,000: at most {BAR_MANY_S / 60:g})")  # fmt: skip
    return f"whole catalogue, K = {K}, {facts['threads']} threads: " + (", ".join(told) or "ratios")


if __name__ == "__main__":
    main()
