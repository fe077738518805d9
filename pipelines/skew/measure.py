"""The skew of logged requests: of the runtime (same inputs, other answer) and of the features (same moment, other inputs)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.skew.difference import Difference
from pipelines.skew.logged import Logged, logged_requests
from pipelines.skew.offline import Offline
from pipelines.skew.rescore import bundles, rescore
from recsys.columns import USER
from recsys.dataset import Dataset
from serving.bundle.bundle import Bundle

SCORE_TOLERANCE, FEATURE_TOLERANCE = 1e-4, 1e-5  # of 1 + the value; numpy's log and exp round the last bit by the processor
SHOWN = 5


@dataclass(frozen=True)
class Limits:
    """The largest share that is no failure: of probabilities, of requests, and of a feature's values."""

    scores: float = 0.0
    histories: float = 0.01
    features: float = 0.01  # with the user in their key
    stale_features: float = 1.0  # without: they are as of the bundle


@dataclass(frozen=True)
class Compared:
    """Requests whose inputs could be worked out again, and those of them in which they were others."""

    requests: int
    differing: tuple[str, ...]

    @property
    def share(self) -> float:
        return len(self.differing) / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Skew:
    requests: int
    other_versions: int  # requests whose bundle is not here
    not_in_log: int  # requests after the end of the log, of nobody, or of someone who was forgotten
    scores: Mapping[str, Difference]  # by task
    histories: Compared
    behaviours: Compared
    features: Mapping[str, Difference]
    by_user: frozenset[str]  # features with the user in their key
    limits: Limits

    @property
    def failures(self) -> list[str]:
        """One sentence for each limit that is exceeded."""
        parts = {f"probability of {task}": (found.share, self.limits.scores) for task, found in self.scores.items()}
        parts |= {
            "histories": (self.histories.share, self.limits.histories),
            "behaviours": (self.behaviours.share, self.limits.histories),
        }
        for name, found in self.features.items():
            limit = self.limits.features if name in self.by_user else self.limits.stale_features
            parts[f"feature {name}"] = (found.share, limit)
        return [
            f"{name}: {share:.2%} differ, the limit is {limit:.2%}" for name, (share, limit) in parts.items() if share > limit
        ]

    def document(self) -> dict[str, Any]:
        compared = {"histories": self.histories, "behaviours": self.behaviours}
        return {
            "requests": self.requests, "other_versions": self.other_versions, "not_in_log": self.not_in_log,
            "scores": {task: found.document() for task, found in self.scores.items()},
            **{
                name: {"requests": found.requests, "share": found.share, "examples": list(found.differing[:SHOWN])}
                for name, found in compared.items()
            },
            "features": {
                name: {**found.document(), "of_the_user": name in self.by_user} for name, found in self.features.items()
            },
            "limits": vars(self.limits), "failures": self.failures,
        }  # fmt: skip


def measure(data: Dataset, live: Path, folders: Sequence[Path], limits: Limits) -> Skew:
    """`data`: made of the log that has what was posted; `live`: the server's folder; `folders`: where bundles may be.

    Raises InputError where there is nothing to compare.
    """
    logged = logged_requests(live)
    bundle_of = bundles(folders, {each.version for each in logged})
    here = [each for each in logged if each.version in bundle_of]
    scores = rescore(bundle_of, here, SCORE_TOLERANCE)
    known = [each for each in here if each.user_id is not None and each.known]
    differing: dict[str, list[str]] = {"history": [], "behaviour": []}
    counted = {"history": 0, "behaviour": 0}
    found: dict[str, list[np.ndarray]] = {}
    expected: dict[str, list[np.ndarray]] = {}
    in_log = 0
    for version, bundle in bundle_of.items():
        offline = Offline(data, bundle.facts.tasks)
        asked = [each for each in known if each.version == version and each.time_ms <= offline.newest_ms]
        in_log += len(asked)
        _compare_histories(bundle, offline, asked, differing, counted)
        if bundle.features is not None and asked:
            for each, values in zip(asked, offline.features(bundle.facts.features, asked), strict=True):
                for name, value_K in values.items():
                    found.setdefault(name, []).append(np.array(each.dense[name], np.float32))
                    expected.setdefault(name, []).append(value_K)
    specs = {name: spec for bundle in bundle_of.values() for name, spec in bundle.facts.features.items()}
    return Skew(
        requests=len(logged), other_versions=len(logged) - len(here), not_in_log=len(here) - in_log, scores=scores,
        histories=Compared(counted["history"], tuple(differing["history"])),
        behaviours=Compared(counted["behaviour"], tuple(differing["behaviour"])),
        features={name: Difference.of(found[name], expected[name], FEATURE_TOLERANCE) for name in found},
        by_user=frozenset(name for name, spec in specs.items() if USER in spec.by), limits=limits,
    )  # fmt: skip


def _compare_histories(
    bundle: Bundle, offline: Offline, asked: Sequence[Logged], differing: dict[str, list[str]], counted: dict[str, int]
) -> None:
    for each in asked:
        items, times_ms, behaviours = offline.history(each, bundle.facts.max_history)
        counted["history"] += 1
        if (each.history, each.history_ms) != (items, times_ms):
            differing["history"].append(each.request_id)
        elif bundle.reads_behaviours:
            counted["behaviour"] += 1
            if each.behaviours != behaviours:
                differing["behaviour"].append(each.request_id)


def write(skew: Skew, path: Path) -> None:
    path.write_text(json.dumps(skew.document(), indent=1, allow_nan=False) + "\n")
