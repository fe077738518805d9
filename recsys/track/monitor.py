"""What the machine does while a stage runs: `system/...`, under the names of MLflow's own monitor.

Differs from MLflow's monitor, which asks the store at each sample: the values go through the run's journal, so that a store
that is away costs nothing.
"""

import shutil
import subprocess
import threading
from types import TracebackType

import psutil

from recsys.track.run import Run

EVERY_S = 10.0
GPU_FIELDS = ("utilization_percentage", "memory_usage_megabytes", "memory_total_megabytes", "power_usage_watts")
GPU_QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used,memory.total,power.draw", "--format=csv,noheader,nounits")


class SystemMonitor:
    """Samples at the beginning, every `EVERY_S` seconds and at the end of a `with` block."""

    def __init__(self, run: Run):
        self.run = run
        self._samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, name="recsys-system", daemon=True)
        self._has_gpu = shutil.which(GPU_QUERY[0]) is not None
        self._network = psutil.net_io_counters()

    def __enter__(self) -> "SystemMonitor":
        psutil.cpu_percent()  # the share since the call before
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _sample_on(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._sample()

    def _sample(self) -> None:
        memory, disk, network = psutil.virtual_memory(), psutil.disk_usage("."), psutil.net_io_counters()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            "process_memory_usage_megabytes": psutil.Process().memory_info().rss / 1e6,
            "disk_usage_percentage": disk.percent,
            "disk_available_megabytes": disk.free / 1e6,
        }
        if network is not None and self._network is not None:  # a container may have none
            values["network_receive_megabytes"] = (network.bytes_recv - self._network.bytes_recv) / 1e6
            values["network_transmit_megabytes"] = (network.bytes_sent - self._network.bytes_sent) / 1e6
        values |= self._gpus() if self._has_gpu else {}
        self.run.metrics({f"system/{name}": value for name, value in values.items()}, self._samples)
        self._samples += 1

    def _gpus(self) -> dict[str, float]:
        try:
            said = subprocess.run(GPU_QUERY, capture_output=True, text=True, timeout=5, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return {}
        found = {}
        for gpu, line in enumerate(said.strip().splitlines()):
            for field, text in zip(GPU_FIELDS, line.split(", "), strict=False):
                if text.replace(".", "", 1).isdigit():  # else the card does not say
                    found[f"gpu_{gpu}_{field}"] = float(text)
        return found
