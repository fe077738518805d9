"""How the quality of served lists changes with the number of candidates that go to the ranker.

"Drowning in Documents", Jacob et al. 2024, https://arxiv.org/abs/2411.11767: rerankers get better with more candidates, and
then worse, since each further one is a chance to mistake something. Differs from the paper: here the ranker is the bundle's
own, judged as `recsys evaluate` judges, and a depth of 1 is the order of retrieval alone.
Shapes: U = users judged, K = places of a list, N = candidates.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pipelines.depth.asked import questions
from pipelines.workspace import Workspace
from recsys import evaluate
from recsys.columns import SPLIT_NAMES
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate import Judged
from recsys.metrics.categories import categories_of, intra_list_diversity
from recsys.metrics.ranking import coverage, rank_metrics
from recsys.metrics.significance import paired_bootstrap
from recsys.rerank import check_categories
from serving.bundle.bundle import Bundle
from serving.cascade.asked import Asked
from serving.cascade.rerank import rerank
from serving.cascade.score import score

DEPTHS = (1, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
AT_ONCE = 64  # users
TIMED = 40  # users whose list is timed by itself, at every depth
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """The lists of every judged user at one depth."""

    item_UK: np.ndarray
    reranked_UK: np.ndarray  # the same without rerankers
    found_UN: np.ndarray  # all candidates as they stand; 0 behind the last
    ms_per_list: float  # of one list by itself: the median


def depth_run(
    config: RunConfig, data: Dataset, workspace: Workspace, *, depths: Sequence[int] = (), k: int = 10,
    users: int | None = None, split: str = "test", progress: Progress = lambda done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Metrics of each depth, the best one, and the smallest that is not worse. Rerankers and the value are those of the config,
    all else is the bundle's. Raises InputError."""
    bundle = open_bundle(config, data, workspace)
    depths = _depths(bundle, depths)
    if not 1 <= k <= bundle.facts.num_candidates:
        raise InputError(f"--k is {k}: choose 1 to {bundle.facts.num_candidates}, the candidates of the bundle")
    judged, left_out = _judged(config, data, split, users)
    rules = config.evaluation
    asked = questions(
        bundle, data, judged, SPLIT_NAMES.index(split), k=k, filter_seen=rules.filter_seen, request_time=rules.request_time
    )
    total = len(depths) * len(asked)
    found, ms = {}, _times(bundle, depths, asked, k)
    for place, depth in enumerate(depths):
        report = partial(_report, progress, place * len(asked), total)
        found[depth] = replace(lists(at_depth(bundle, depth), asked, k, report), ms_per_list=ms[depth])
    return {
        "config": config.name, "split": split, "k": k, "users": len(asked), "without_history": left_out,
        "bundle": bundle.version, "num_candidates": bundle.facts.num_candidates, "served": bundle.facts.serving.ranked,
        "rerank": [each.kind for each in config.serving.rerank],
        **judge(config, data, judged, found, k),
    }  # fmt: skip


def open_bundle(config: RunConfig, data: Dataset, workspace: Workspace) -> Bundle:
    """The run's bundle with the value and the rerankers of this config."""
    bundle = Bundle.load(workspace.bundle)
    if bundle.lineage.get("dataset") != data.manifest["fingerprint"]:
        raise InputError(f"{workspace.bundle} was made of another dataset than {data.folder}: run `recsys export` again")
    if bundle.ranking is None:
        raise InputError(f"{workspace.bundle} has no ranker, so that there is no depth: name tasks in data.events.labels")
    feature, values = next(iter(bundle.facts.category.items()), (None, ()))
    check_categories(config.serving.rerank, feature, values)
    serving = bundle.facts.serving.model_copy(update={"rerank": config.serving.rerank})
    return replace(bundle, facts=bundle.facts.model_copy(update={"value": config.value, "serving": serving}))


def at_depth(bundle: Bundle, depth: int) -> Bundle:
    serving = bundle.facts.serving.model_copy(update={"ranked": depth})
    return replace(bundle, facts=bundle.facts.model_copy(update={"serving": serving}))


def lists(bundle: Bundle, asked: Sequence[Asked], k: int, progress: Callable[[int], None] = lambda done: None) -> Found:
    """What is served to each, before rerankers and after them."""
    shape = (len(asked), bundle.facts.num_candidates)
    plain_UN, reranked_UN = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    rng = np.random.default_rng(0)
    order = np.argsort([len(each.history_L) for each in asked], kind="stable")  # so that little is padding
    for begin in range(0, len(order), AT_ONCE):
        row_B = order[begin : begin + AT_ONCE]
        for row, scored in zip(row_B, score(bundle, [(asked[row], k) for row in row_B]), strict=True):
            plain_UN[row, : len(scored.item_K)] = scored.item_K
            after, _ = rerank(bundle, scored, k, rng)
            reranked_UN[row, : len(after.item_K)] = after.item_K
        progress(begin + len(row_B))
    return Found(plain_UN[:, :k], reranked_UN[:, :k], plain_UN, 0.0)


def judge(config: RunConfig, data: Dataset, judged: Judged, found: dict[int, Found], k: int) -> dict[str, Any]:
    """Each depth beside the best one, by NDCG of the lists before rerankers, and each list after them beside itself before."""
    main, rng = f"NDCG@{k}", np.random.default_rng(config.seed)
    values = {depth: rank_metrics(each.item_UK, judged.relevant, [k])[main] for depth, each in found.items()}
    peak = max(values, key=lambda depth: (values[depth].mean(), -depth))
    by_retrieval_UN = found[min(found)].found_UN if min(found) == 1 else None
    rows: list[dict[str, Any]] = []
    for depth, each in found.items():
        row: dict[str, Any] = {"depth": depth, "ms_per_list": each.ms_per_list, **_means(config, data, judged, each.item_UK, k)}
        row["to_peak"] = paired_bootstrap(values[depth], values[peak], rng=rng)._asdict()
        if by_retrieval_UN is not None:
            row["reach"] = float(rank_metrics(by_retrieval_UN, judged.relevant, [depth])[f"Recall@{depth}"].mean())
        if config.serving.rerank:
            after_U = rank_metrics(each.reranked_UK, judged.relevant, [k])[main]
            row["reranked"] = _means(config, data, judged, each.reranked_UK, k)
            row["reranked"]["to_plain"] = paired_bootstrap(after_U, values[depth], rng=rng)._asdict()
        rows.append(row)
    smallest = min(row["depth"] for row in rows if row["to_peak"]["high"] >= 0)
    return {"metric": main, "peak": peak, "smallest": smallest, "depths": rows}


def _means(config: RunConfig, data: Dataset, judged: Judged, item_UK: np.ndarray, k: int) -> dict[str, float]:
    per_user = rank_metrics(item_UK, judged.relevant, [k])
    means = {name: float(per_user[name].mean()) for name in (f"NDCG@{k}", f"HR@{k}")}
    means[f"coverage@{k}"] = coverage(item_UK, data.num_items)
    if config.category is not None:
        diversity_U = intra_list_diversity(item_UK, categories_of(data.codes(config.category, "item")))
        known_U = ~np.isnan(diversity_U)
        means |= {f"ILD@{k}": float(diversity_U[known_U].mean())} if known_U.any() else {}
    return means


def _judged(config: RunConfig, data: Dataset, split: str, users: int | None) -> tuple[Judged, int]:
    """Whom `recsys evaluate` judges, and how many were left out: those without a history, whose lists no graph makes."""
    if split not in SPLIT_NAMES[1:]:
        raise InputError(f"--split {split!r} is unknown: choose valid or test")
    rules = config.evaluation
    judged = evaluate.judged_users(
        data, SPLIT_NAMES.index(split), filter_seen=rules.filter_seen, request_time=rules.request_time
    )  # fmt: skip
    row_U = np.flatnonzero(judged.history.lengths)
    left_out = len(judged.user_U) - len(row_U)
    if users is not None and users < len(row_U):
        row_U = np.sort(np.random.default_rng(config.seed).choice(row_U, max(1, users), replace=False))
    if not len(row_U):
        raise InputError(f"{data.folder}: no user has a history and a {split} event: change data.split")
    return judged.take(row_U), left_out


def _depths(bundle: Bundle, wanted: Sequence[int]) -> list[int]:
    most = bundle.facts.num_candidates
    if bad := [depth for depth in wanted if not 1 <= depth <= most]:
        raise InputError(f"--depth is {bad[0]}: choose 1 to {most}, the candidates of the bundle")
    return sorted(set(wanted) or {*(depth for depth in DEPTHS if depth < most), most})


def _times(bundle: Bundle, depths: Sequence[int], asked: Sequence[Asked], k: int) -> dict[int, float]:
    """Median milliseconds of one list; the depths take turns, so that what else the machine does falls on all alike."""
    rng, bundles = np.random.default_rng(0), {depth: at_depth(bundle, depth) for depth in depths}
    took: dict[int, list[float]] = {depth: [] for depth in depths}
    for row in _spread(len(asked), TIMED):
        for depth in depths:
            began_s = time.perf_counter()
            [scored] = score(bundles[depth], [(asked[row], k)])
            rerank(bundles[depth], scored, k, rng)
            took[depth].append((time.perf_counter() - began_s) * 1000)
    return {depth: float(np.median(each)) for depth, each in took.items()}


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _spread(count: int, most: int) -> Iterator[int]:
    yield from sorted(set(np.linspace(0, count - 1, min(count, most)).astype(int).tolist()))
