"""A real MLflow server for tests: they may kill, freeze and start it again, or lose the way to it in mid-command."""

import pytest
from mlflow.tracking import MlflowClient

from benchmarks.faults.network import Proxy
from benchmarks.mlflow_server import Server, free_port

__all__ = ["Proxy", "Server", "cut_at", "free_port"]


def cut_at(monkeypatch: pytest.MonkeyPatch, proxy: Proxy, call: str, number: int, *, silent: bool) -> None:
    """Cut the network when MLflow's client is about to make this call for so many times."""
    real, made = getattr(MlflowClient, call), 0

    def cutting(*words: object, **options: object) -> object:
        nonlocal made
        made += 1
        if made == number:
            proxy.cut(silent=silent)
        return real(*words, **options)

    monkeypatch.setattr(MlflowClient, call, cutting)
