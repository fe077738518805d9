"""A real Redis server for tests: they may kill, freeze and start it again.

A test module takes it with `from redis_server import redis_server, running_redis`. Without redis-server the tests skip,
and fail where CI must have it.
"""

import os
import shutil
from collections.abc import Iterator
from typing import NoReturn

import pytest

from benchmarks.redis import Server
from benchmarks.redis import running_redis as running

__all__ = ["Server", "redis_server", "running_redis"]


@pytest.fixture(scope="session")
def running_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        _absent("redis-server is not installed: install the package redis-server")
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(running_redis: Server) -> Server:
    """A running server without any data."""
    if not running_redis.is_running:
        running_redis.start()
    running_redis.ask("FLUSHALL")
    return running_redis


def _absent(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
