"""A real MLflow server for tests: they may kill, freeze and start it again."""

from benchmarks.mlflow_server import Server, free_port

__all__ = ["Server", "free_port"]
