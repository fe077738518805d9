"""Dagster's home below a workspace: SQLite for what it knows, one run at a time, no word to its makers."""

from pathlib import Path

import yaml

INSTANCE = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},  # the page would ask for an e-mail address
    "concurrency": {"runs": {"max_concurrent_runs": 1}},  # a day begins from the one before, and the workspace has one lock
    "run_monitoring": {"enabled": True, "start_timeout_seconds": 180},
    # A step that fails is tried again by its own policy. This is for a worker or a machine that died.
    "run_retries": {"enabled": True, "max_retries": 3, "retry_on_asset_or_op_failure": False},
    "retention": {
        "sensor": {"purge_after_days": {"skipped": 1, "success": 30, "failure": 30}},
        "schedule": {"purge_after_days": {"skipped": 7, "success": 90, "failure": 90}},
    },
}
LOCATION = {"load_from": [{"python_module": {"module_name": "pipelines.schedule.location", "location_name": "recsys"}}]}


def home_of(workspace: Path) -> Path:
    return workspace / "dagster"


def write_home(home: Path) -> Path:
    """Write dagster.yaml, unless someone wrote their own there, and workspace.yaml, whose path is returned."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE, sort_keys=False))
    (home / "workspace.yaml").write_text(yaml.safe_dump(LOCATION, sort_keys=False))
    return home / "workspace.yaml"
