"""Runs, metrics and model versions in MLflow, which nothing else in the library imports; it is loaded on first use.

Metric names keep their `@` (`test/NDCG@10`) on this side. MLflow refuses that sign, so its store and its pages show
`test/NDCG:10`.
"""

from recsys.track.claims import Claim, claimed
from recsys.track.facts import lock_hash
from recsys.track.flavour import model_files
from recsys.track.reading import artefact, artefacts, children, deleted_runs, metric_histories, stages
from recsys.track.registry import (
    Version,
    describe_version,
    fetch,
    get_alias,
    get_version,
    missing_files,
    register,
    run_of,
    set_alias,
    tag_version,
)
from recsys.track.remarks import annotate, is_deleted
from recsys.track.run import Run, resume_run, start_run
from recsys.track.runs import RunSummary, get_run, list_runs
from recsys.track.store import DEFAULT_URI, StoreAwayError, describe_store, resolve_uri
from recsys.track.sync import Waiting, sync, waiting
from recsys.track.tags import COMMIT, DATA, LOCK, MEASURED, PROTOCOL, STAGE

__all__ = [
    "COMMIT",
    "DATA",
    "DEFAULT_URI",
    "LOCK",
    "MEASURED",
    "PROTOCOL",
    "STAGE",
    "Claim",
    "Run",
    "RunSummary",
    "StoreAwayError",
    "Version",
    "Waiting",
    "annotate",
    "artefact",
    "artefacts",
    "children",
    "claimed",
    "deleted_runs",
    "describe_store",
    "describe_version",
    "fetch",
    "get_alias",
    "get_run",
    "get_version",
    "is_deleted",
    "list_runs",
    "lock_hash",
    "metric_histories",
    "missing_files",
    "model_files",
    "register",
    "resolve_uri",
    "resume_run",
    "run_of",
    "set_alias",
    "stages",
    "start_run",
    "sync",
    "tag_version",
    "waiting",
]
