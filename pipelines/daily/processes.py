"""A day's training in several processes of this machine, by torchrun: each runs `python -m pipelines.daily.processes ORDER`."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from pipelines.workspace import Workspace, parts
from recsys.artefact import read_manifest
from recsys.config import RunConfig
from recsys.errors import InputError


def train_with_processes(
    config: RunConfig, workspace: Workspace, start: Workspace | None, *, uri: str | None
) -> dict[str, dict[str, Any]]:
    """What `stages.train` does and returns. Raises InputError where a process fails; a later run goes on from checkpoints."""
    with tempfile.TemporaryDirectory(prefix="recsys-train-") as scratch:
        order = Path(scratch) / "order.json"
        order.write_text(
            json.dumps(
                {
                    "config": config.model_dump(mode="json", exclude_unset=True),  # a default, written out, counts as asked for
                    "workspace": str(workspace.root),
                    "start": None if start is None else str(start.root), "uri": uri,
                }
            )
        )  # fmt: skip
        count = str(config.daily.processes)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
        command += ["-m", __spec__.name, str(order)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2) as torchrun:  # what is printed is no result
            status = torchrun.wait()
    if status:
        raise InputError(f"one of the {count} training processes failed, see above: mend it, and run the day again")
    return {part: read_manifest(workspace.checkpoint(part), "checkpoint") for part in parts(config)}


def main(path: str) -> None:
    """One of the processes; only the first one shows and tracks."""
    from pipelines import stages
    from pipelines.terminal import console

    threading.Thread(target=_end_with_the_day, daemon=True).start()
    order = json.loads(Path(path).read_text())
    start = None if order["start"] is None else Workspace(Path(order["start"]))
    try:
        stages.train(
            RunConfig.model_validate(order["config"]), Workspace(Path(order["workspace"])), only=None,
            console=console if stages.is_first_process() else None, uri=order["uri"], start=start, continual=start is not None,
        )  # fmt: skip
    except InputError as error:
        sys.exit(f"error: {error}")


def _end_with_the_day() -> None:
    """End when the run of the day does, however that ends: its lock is free then, and another run may train here.

    torchrun passes its standard input on, a pipe whose other end only that run has."""
    os.read(0, 1)  # and not sys.stdin, whose lock a process that ends well would wait for
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
