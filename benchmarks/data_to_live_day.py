"""`recsys daily` in this process, with the processor seconds of each step beside what day.json has of it.

python -m benchmarks.data_to_live_day STEPS.json [the options of recsys daily]
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(out: Path, arguments: list[str]) -> None:
    """Write step -> [wall seconds, processor seconds] to `out`; `start`: until the first step, imports included."""
    from pipelines.cli import main as recsys
    from pipelines.daily import steps

    found = {"start": [time.time() - _began(), time.process_time()]}

    def timed(name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def run(today: Any) -> Any:
            wall, processor = time.perf_counter(), time.process_time()
            try:
                return action(today)
            finally:
                found[name] = [time.perf_counter() - wall, time.process_time() - processor]
                out.write_text(json.dumps(found))

        return run

    for name, action in steps.ACTIONS.items():
        steps.ACTIONS[name] = timed(name, action)
    sys.argv = ["recsys", "daily", *arguments]
    recsys()


def _began() -> float:
    import psutil

    return psutil.Process().create_time()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
