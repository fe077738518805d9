"""The daily run on Dagster: its real page and daemon on a scratch home, with the real `recsys daily` in child processes."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipelines.daily.lock import held
from pipelines.schedule.home import home_of
from pipelines.schedule.run import alone
from pipelines.schedule.target import Target
from pipelines.workspace import config_path
from recsys.config import load
from recsys.daily_config import DailyConfig
from recsys.errors import InputError
from recsys.simulate import Simulation, simulate
from serving.run import free_port

if not os.environ.get("CI"):  # there it has to be installed
    pytest.importorskip("dagster", reason="dagster is not installed: RECSYS_EXTRAS=1 scripts/setup.sh")

DAY, NEXT = "2026-01-05", "2026-01-06"
SETTINGS = (
    "promotion.floor=null", "retriever.fit.epochs=1", "ranker.fit.epochs=1", "retriever.encoder.dim=8", "daily.marker=_SUCCESS"
)  # fmt: skip
WITHIN_S = 600  # on a busy machine; less than a minute where nothing else runs


class Page:
    """Dagster's GraphQL, as its page asks it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        assert "errors" not in found, found
        return found["data"]

    def run_of(self, day: str) -> dict[str, Any] | None:
        """The newest run of a day."""
        events = "... on MessageEvent { eventType stepKey message }"
        runs = self.ask(
            "query($f: RunsFilter) { runsOrError(filter: $f) { ... on Runs { results { runId status tags { key value } "
            f"eventConnection {{ events {{ {events} }} }} }} }} }} }}",
            f={"tags": [{"key": "dagster/partition", "value": day}]},
        )["runsOrError"]["results"]
        return runs[0] if runs else None

    def ended(self, day: str) -> dict[str, Any]:
        """The run of a day, once it ended."""
        return until(lambda: (run := self.run_of(day)) and run["status"] in ("SUCCESS", "FAILURE") and run, f"the run of {day}")


def until(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except OSError:  # it is starting
            pass
        time.sleep(0.5)
    raise AssertionError(f"{what} did not come within {WITHIN_S} s")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of six days with their markers, and a workspace beside it."""
    made = tmp_path_factory.mktemp("schedule")
    simulate(Simulation(users=150, items=80, events=6000, days=6), made / "raw")
    (made / "later").mkdir()
    (made / "raw/events" / f"day={NEXT}").rename(made / "later" / NEXT)
    for partition in (made / "raw/events").iterdir():
        (partition / "_SUCCESS").touch()
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    """`recsys schedule`, while the lock of its workspace is held by this process."""
    port = free_port()
    with (folder / "log").open("wb") as log, held(folder / "ws/lock", "the test"):
        process = subprocess.Popen(
            command(folder, "--port", str(port), "--every", "1", "--retry-delay", "1"), stdout=log, stderr=log,
            cwd=folder, env=environment(),
        )  # fmt: skip
        found = Page(f"http://127.0.0.1:{port}")
        try:
            until(lambda: "STEP_UP_FOR_RETRY" in kinds(found.run_of(DAY)), "a retry while the workspace is busy")
        except BaseException:
            stop(process)
            print((folder / "log").read_text()[-4000:])
            raise
    yield found
    stop(process)
    assert process.returncode == 0
    left = subprocess.run(["pgrep", "-f", str(home_of(folder / "ws"))], capture_output=True, text=True).stdout
    assert not left, "processes of Dagster outlive `recsys schedule`"


def command(folder: Path, *more: str) -> list[str]:
    sets = [word for each in SETTINGS for word in ("--set", each)]
    store = f"sqlite:///{folder}/mlflow.db"
    where = ["--config", "demo", "--data", "raw", "--workspace", "ws", "--store", store]
    return [sys.executable, "-m", "pipelines.cli", "schedule", *where, *sets, *more]


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def kinds(run: dict[str, Any] | None) -> list[str]:
    return [event.get("eventType") for event in run["eventConnection"]["events"]] if run else []


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def test_a_day_that_is_there_is_run_and_a_step_that_met_a_busy_workspace_is_tried_again(page: Page, folder: Path) -> None:
    run = page.ended(DAY)
    assert run["status"] == "SUCCESS", (folder / "log").read_text()[-4000:]
    assert "STEP_RESTARTED" in kinds(run)
    assert "STEP_FAILURE" not in kinds(run)
    assert {"key": "dagster/sensor_name", "value": "arriving_days"} in run["tags"]
    assert [path.name for path in (folder / "ws/days").iterdir()] == [DAY], "earlier days are part of the first one's dataset"
    nodes = page.ask(
        "{ assetNodes { assetKey { path } dependencyKeys { path } partitionDefinition { name type } "
        "assetMaterializations { partition metadataEntries { label ... on IntMetadataEntry { intValue } } } } }"
    )["assetNodes"]
    found = {node["assetKey"]["path"][0]: node for node in nodes}
    assert list_of(found, "partition") == {name: [DAY] for name in found}
    parents = {name: sorted(key["path"][0] for key in node["dependencyKeys"]) for name, node in found.items()}
    assert parents == {
        "raw": [], "dataset": ["dataset", "raw"], "checkpoint": ["dataset"], "metrics": ["checkpoint"], "bundle": ["metrics"],
        "champion": ["bundle"],
    }  # fmt: skip
    state = json.loads((folder / "ws/days" / DAY / "day.json").read_text())
    assert state["status"] == "done"
    shown = {row["label"]: row for row in found["dataset"]["assetMaterializations"][0]["metadataEntries"]}
    assert shown["prepare/examples"]["intValue"] == state["steps"]["prepare"]["detail"]["examples"]
    checks = page.ask(
        "{ assetNodes { assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization "
        "{ evaluation { success } } } } } } }"
    )["assetNodes"]
    results = {
        check["name"]: check["executionForLatestMaterialization"]["evaluation"]["success"]
        for node in checks for check in node["assetChecksOrError"].get("checks", [])
    }  # fmt: skip
    assert results["gates"] is (state["decision"]["outcome"] == "promoted")
    assert results["alarms"] is (not state["alarms"])


def test_a_day_is_run_once_its_marker_is_there_and_one_that_is_refused_is_not_tried_again(page: Page, folder: Path) -> None:
    page.ended(DAY)
    (folder / "later" / NEXT / "part-0.parquet").write_bytes(b"no Parquet")
    (folder / "later" / NEXT).rename(folder / "raw/events" / f"day={NEXT}")
    now = time.time()
    until(lambda: sum(each > now for each in looks(page)) >= 3, "three more looks")
    assert page.run_of(NEXT) is None, "without its marker the day is not whole"
    (folder / "raw/events" / f"day={NEXT}" / "_SUCCESS").touch()
    run = page.ended(NEXT)
    assert run["status"] == "FAILURE"
    assert "STEP_UP_FOR_RETRY" not in kinds(run)


def list_of(nodes: dict[str, Any], key: str) -> dict[str, list[Any]]:
    return {name: [each[key] for each in node["assetMaterializations"]] for name, node in nodes.items()}


def looks(page: Page) -> list[float]:
    """When the sensor looked, in seconds since 1970."""
    selector = {"repositoryName": "__repository__", "repositoryLocationName": "recsys", "sensorName": "arriving_days"}
    found = page.ask(
        "query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { sensorState { ticks(limit: 20) "
        "{ timestamp } } } } }", s=selector,
    )  # fmt: skip
    return [tick["timestamp"] for tick in found["sensorOrError"]["sensorState"]["ticks"]]


def test_a_partition_that_dagster_does_not_have_keeps_no_other_day_waiting(tmp_path: Path) -> None:
    import dagster as dg

    from pipelines.schedule.definitions import SENSOR, make_definitions

    def arrive(day: str) -> None:
        (tmp_path / "raw/events" / f"day={day}").mkdir(parents=True)
        (tmp_path / "raw/events" / f"day={day}" / "part-0.csv").write_text("x")

    config = load(config_path("demo"))
    target = Target(
        config="demo", data=tmp_path / "raw", workspace=tmp_path / "ws", directory=tmp_path, first_day=date(2026, 1, 5),
        events=config.data.events.model_dump(mode="json"), daily=DailyConfig(marker=None),
    )  # fmt: skip
    repository = make_definitions(target).get_repository_def()
    sensor, cursor, asked = repository.get_sensor_def(SENSOR), None, []
    with dg.DagsterInstance.ephemeral() as instance:
        for days in (["2026-01-05"], ["2026-01-02", "2099-01-01", "2026-01-06"], []):
            for each in days:
                arrive(each)
            context = dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository)
            tick = sensor.evaluate_tick(context)
            cursor = tick.cursor
            asked.append([request.partition_key for request in tick.run_requests or []])
    assert asked == [[], ["2026-01-05"], ["2026-01-06"]]


def test_two_schedules_of_one_workspace_are_refused(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(InputError, match="already"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass
