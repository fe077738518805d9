"""Dagster's two processes, its page and its daemon: started, watched and stopped together."""

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.schedule.home import home_of, write_home
from pipelines.schedule.target import VARIABLE, Target
from recsys.errors import InputError

STOP_S = 45.0  # the daemon's threads end one after the other
LOOK_S = 0.5


def check_installed() -> None:
    """Raises InputError where the optional packages are not there."""
    missing = [name for name in ("dagster", "dagster_webserver") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{missing[0].replace('_', '-')} is not installed: run `pip install 'recsys[schedule]'`, or set it up with "
            "RECSYS_EXTRAS=1 scripts/setup.sh; `recsys schedule --print-cron` needs neither"
        )


def run(target: Target, host: str, port: int) -> int:
    """Keep the page and the daemon up until Ctrl-C or SIGTERM (0), or until one of them ends by itself (1)."""
    home = home_of(target.workspace)
    with alone(home):
        workspace_file = write_home(home)
        environment = {
            **os.environ, "DAGSTER_HOME": str(home), VARIABLE: str(target.write(home)), "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        subprocess.run([sys.executable, "-m", "pipelines.schedule.recover"], env=environment, check=True)
        common = ["--workspace", str(workspace_file)]
        commands = [
            [sys.executable, "-m", "dagster_webserver", *common, "--host", host, "--port", str(port)],
            [sys.executable, "-m", "dagster._daemon", "run", *common, "--log-level", "warning"],
        ]
        return _watch(commands, environment, target.directory)


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Two daemons on one home would start each day twice. Raises InputError where one is there already."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"a schedule runs in {home} already: stop that one first, or name another --workspace") from None
        yield


def _watch(commands: list[list[str]], environment: dict[str, str], directory: Path) -> int:
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # SIGINT: a shell ignores it for what it runs in the background
        signal.signal(each, signal.default_int_handler)
    children: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            children.append(
                subprocess.Popen(
                    command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, start_new_session=True
                )
            )  # fmt: skip
        while all(child.poll() is None for child in children):
            time.sleep(LOOK_S)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(children)


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    """Ask all to end, wait for them, and end what is left of their process groups, a step in progress included."""
    for child in children:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_S
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(deadline - time.monotonic(), 0.1))
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
