"""Runs, metrics and model versions in MLflow, which nothing else in the library imports; it is loaded on first use.

Metric names keep their `@` (`test/NDCG@10`) on this side. MLflow refuses that sign, so its store and its pages show
`test/NDCG:10`.
"""

from recsys.track.registry import Version, fetch, get_alias, register, set_alias, tag_version
from recsys.track.runs import COMMIT, DATA, LOCK, PROTOCOL, Run, RunSummary, get_run, list_runs, resume_run, start_run
from recsys.track.store import DEFAULT_URI, describe_store, resolve_uri

__all__ = [
    "COMMIT",
    "DATA",
    "DEFAULT_URI",
    "LOCK",
    "PROTOCOL",
    "Run",
    "RunSummary",
    "Version",
    "describe_store",
    "fetch",
    "get_alias",
    "get_run",
    "list_runs",
    "register",
    "resolve_uri",
    "resume_run",
    "set_alias",
    "start_run",
    "tag_version",
]
