"""What Prometheus scrapes. Labels are bounded: routes as the table of routes has them, never a path, a key, a user or an item.

Worker processes keep their numbers in memory-mapped files of one folder (PROMETHEUS_MULTIPROC_DIR: BentoML sets it to a folder
under this server's BENTOML_HOME), and whichever of them is asked answers for all.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from serving.answers import Flag, Recommendations, Rung
from serving.bundle.bundle import Bundle
from serving.drift import Drift
from serving.models.models import Models

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
STAGES = ("state", "graphs", "rerank", "journal")
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DRIFT = "recsys_score_drift_psi"


class Metrics:
    """Of one process, or of all where there is a folder. Some 25 microseconds a request, most of them for the stages."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.folder = os.environ.get(FOLDER_VARIABLE)
        self.registry = own = CollectorRegistry()
        requests = Counter("recsys_requests", "answered requests", ["route", "status"], registry=own)
        seconds = Histogram("recsys_request_seconds", "time to answer", ["route"], buckets=SECONDS, registry=own)
        stages = Histogram("recsys_stage_seconds", "time of a stage of a list", ["stage"], buckets=SECONDS, registry=own)
        fallbacks = Counter("recsys_fallbacks", "lists with places that a fallback filled", ["rung"], registry=own)
        flags = Counter("recsys_flags", "lists with a flag", ["flag"], registry=own)
        self._requests, self._seconds = requests, seconds
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._fallbacks = {rung: fallbacks.labels(rung) for rung in get_args(Rung)}
        self._flags = {flag: flags.labels(flag) for flag in get_args(Flag)}
        self.queue = Gauge("recsys_queue", "questions that wait for the graphs", multiprocess_mode="livesum", registry=own)
        self.batch = Histogram("recsys_batch_size", "questions of a run of the graphs", buckets=BATCHES, registry=own)
        self._reloads = Counter("recsys_reloads", "changes of the live model, by worker", registry=own)
        self._drift: Gauge | None = None
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._version = models.live.version
        self._drift_of = _drift(models.live)

    def request(self, route: str, status: int, seconds: float) -> None:
        children = self._children.get((route, status))
        if children is None:
            children = self._requests.labels(route, status), self._seconds.labels(route)
            self._children[route, status] = children
        children[0].inc()
        children[1].observe(seconds)

    def served(self, answer: Recommendations, bundle: Bundle, stages_ms: dict[str, float], queue: int) -> None:
        """A list that was made. `queue`: how many wait now."""
        for stage, ms in stages_ms.items():
            if (histogram := self._stages.get(stage)) is not None:
                histogram.observe(ms / 1000)
        if answer.fallback is not None:
            self._fallbacks[answer.fallback].inc()
        for flag in answer.flags:
            self._flags[flag].inc()
        self.queue.set(queue)
        if answer.arm == "live":
            self._watch(answer, bundle)

    def _watch(self, answer: Recommendations, bundle: Bundle) -> None:
        """Reloads, and the values of the live model's own items."""
        if bundle.version != self._version:
            self._version, self._drift_of = bundle.version, _drift(bundle)
            self._reloads.inc()
        drift = self._drift_of
        if drift is None or not drift.add([item.score for item in answer.items if item.tasks or not bundle.facts.tasks]):
            return
        if (index := drift.index()) is not None:
            if self._drift is None:  # made late: a gauge that nobody set would say 0
                self._drift = Gauge(
                    DRIFT, "population stability index of the values of lists against those at export, worst worker",
                    multiprocess_mode="livemax", registry=self.registry,
                )  # fmt: skip
            self._drift.set(index)

    def page(self) -> bytes:
        """Takes milliseconds: to be called in a thread."""
        registry = self.registry
        if self.folder:
            _forget_dead_workers(Path(self.folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self.folder)
        return generate_latest(registry) + generate_latest(_Versions(self.models))


class _Versions(Collector):
    """Which model is live. Made when asked for, since a worker's file would keep every version that there ever was."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "recsys_model_info", "the live model of the worker that was asked", labels=["model", "version"]
        )
        family.add_metric([self.models.live.name, self.models.live.version], 1)
        yield family


def _drift(bundle: Bundle) -> Drift | None:
    reference = bundle.reference
    return Drift(reference.edges, reference.share) if reference else None


def _forget_dead_workers(folder: Path) -> None:
    """The gauges of a worker that was killed would stay for ever."""
    for path in folder.glob("gauge_live*_*.db"):
        found = re.search(r"_(\d+)\.db$", path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            with suppress(OSError):
                mark_process_dead(int(found[1]), str(folder))
