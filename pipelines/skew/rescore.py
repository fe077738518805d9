"""Logged requests scored again by the same bundle from the same inputs. Shapes: K = items, L = history, T = tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from pipelines.skew.difference import Difference
from pipelines.skew.logged import Logged
from recsys.artefact import is_there, read_manifest
from recsys.columns import UNKNOWN_ID
from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.cascade.asked import context_codes, dense_items
from serving.cascade.probabilities import padded


def bundles(folders: Sequence[Path], wanted: set[str]) -> dict[str, Bundle]:
    """The bundles among `folders` whose version is wanted, by version. Raises InputError where there is none."""
    found: dict[str, Bundle] = {}
    for folder in folders:
        if is_there(folder) and (version := read_manifest(folder, "bundle")["fingerprint"]) in wanted and version not in found:
            found[version] = Bundle.load(folder)
    if not found:
        raise InputError(
            f"the logged requests were answered by {', '.join(sorted(wanted))}, of which none is in "
            f"{', '.join(map(str, folders))}: name the bundle with --bundle"
        )
    return found


def rescore(bundle_of: Mapping[str, Bundle], logged: Sequence[Logged], tolerance: float) -> dict[str, Difference]:
    """By task, what the endpoint said against what the bundle says here."""
    said: dict[str, list[np.ndarray]] = {}
    again: dict[str, list[np.ndarray]] = {}
    for each in logged:
        bundle = bundle_of.get(each.version)
        if bundle is None or bundle.ranking is None or not each.items:
            continue
        [probability_KT] = bundle.ranking.run(["probability"], _inputs(bundle, each, bundle.ranking))[0]
        for t, task in enumerate(bundle.facts.tasks):
            said_K = np.array(each.tasks[task], float)
            ranked_K = ~np.isnan(said_K)
            said.setdefault(task, []).append(said_K[ranked_K])
            again.setdefault(task, []).append(probability_KT[ranked_K, t])
    return {task: Difference.of(said[task], again[task], tolerance) for task in said}


def _inputs(bundle: Bundle, each: Logged, graph: ort.InferenceSession) -> dict[str, np.ndarray]:
    """What the graph reads, one row each. Raises InputError."""
    (item_K, _), (history_L, _) = (dense_items(bundle, list(ids)) for ids in (each.items, each.history))
    user = UNKNOWN_ID if each.user_id is None or not each.known else bundle.user_index.find(each.user_id)
    given = {
        "user": np.array([max(user, UNKNOWN_ID)]),
        "history": padded([history_L])[0],
        "length": np.array([len(history_L)]),
        "behaviour": padded([np.array(each.behaviours, np.int64)])[0],
        "item": item_K[None],
        "context": context_codes(bundle.facts.context, each.context)[None],
    }
    if bundle.features is not None:
        if missing := [name for name in bundle.features.names if name not in each.dense]:
            raise InputError(f"request {each.request_id} was logged without {missing[0]!r}, which its model reads: log it anew")
        given["dense"] = np.array([each.dense[name] for name in bundle.features.names], np.float32).T[None]
    return {entry.name: given[entry.name] for entry in graph.get_inputs()}
