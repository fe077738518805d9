"""The numbers for Prometheus: counted over all workers, bounded labels, and cheap."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.values import MultiProcessValue
from wire import own_endpoint, send

from serving.answers import Item, Recommendations
from serving.api.metrics import FOLDER_VARIABLE, Metrics
from serving.drift import MIN_VALUES, WINDOW, Drift, stability_index
from serving.run import running_service

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def url(bundle_folder: Path) -> Iterator[str]:
    with running_service(bundle_folder, workers=2) as url:
        yield url


def numbers(page: bytes) -> Numbers:
    samples = [sample for family in text_string_to_metric_families(page.decode()) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def grown(before: Numbers, after: Numbers, name: str, **labels: str) -> float:
    key = name, tuple(sorted(labels.items()))
    return after.get(key, 0) - before.get(key, 0)


def test_requests_of_all_workers_are_counted(url: str) -> None:
    before = numbers(send(url, "GET", "/metrics").body)
    for _ in range(20):  # each on a connection of its own: both workers get some
        send(url, "POST", "/recommend", {"user_id": "user-1"})
    send(url, "POST", "/recommend", {"user_id": "user-1", "k": 0})
    send(url, "POST", "/recommend", {"user_id": "nobody"})
    for path in ("/a", "/b", "/users/x"):
        send(url, "GET", path)
    after = numbers(send(url, "GET", "/metrics").body)
    assert grown(before, after, "recsys_requests_total", route="/recommend", status="200") == 21
    assert grown(before, after, "recsys_requests_total", route="/recommend", status="400") == 1
    assert grown(before, after, "recsys_requests_total", route="none", status="404") == 2
    assert grown(before, after, "recsys_requests_total", route="none", status="405") == 1
    assert grown(before, after, "recsys_request_seconds_count", route="/recommend") == 22
    for stage in ("state", "graphs", "rerank", "journal"):
        assert grown(before, after, "recsys_stage_seconds_count", stage=stage) == 21
    assert grown(before, after, "recsys_flags_total", flag="unknown_user") == 1
    assert grown(before, after, "recsys_batch_size_sum") in (20, 21)  # nobody's list may do without the graphs


def test_the_model_is_named_and_no_user_is(url: str) -> None:
    version = send(url, "GET", "/info").json["version"]
    page = send(url, "GET", "/metrics").body
    assert numbers(page)["recsys_model_info", (("model", "tiny"), ("version", version))] == 1
    assert b"user-1" not in page
    assert ("recsys_score_drift_psi", ()) not in numbers(page)  # this bundle has no reference


def test_a_killed_worker_leaves_no_gauge_behind(url: str) -> None:
    import psutil

    port = url.rsplit(":", 1)[1]
    [parent] = [child for child in psutil.Process().children() if port in child.cmdline()]
    folder = Path(parent.environ()["BENTOML_HOME"]) / "prometheus_multiproc_dir"
    pids = {path.stem.rsplit("_", 1)[1] for path in folder.rglob("gauge_livesum_*.db")}
    assert pids
    victim = psutil.Process(int(sorted(pids)[0]))
    victim.kill()
    victim.wait(10)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            send(url, "GET", "/metrics")
        except OSError:
            time.sleep(0.1)
        if not list(folder.rglob(f"gauge_livesum_{victim.pid}.db")):
            break
    assert not list(folder.rglob(f"gauge_livesum_{victim.pid}.db"))


def test_the_stability_index_of_a_known_case() -> None:
    """Worked by hand: (.6 - .5) ln(.6 / .5) + (.4 - .5) ln(.4 / .5) = .1 * .18232 + .1 * .22314."""
    assert stability_index(np.array([0.5, 0.5]), np.array([0.6, 0.4])) == pytest.approx(0.040546, abs=1e-6)
    assert stability_index(np.array([0.2, 0.8]), np.array([0.2, 0.8])) == 0
    assert np.isfinite(stability_index(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


def test_drift_is_seen_and_passes() -> None:
    rng = np.random.default_rng(0)
    share, edges = np.histogram(rng.normal(size=100_000), bins=10)
    drift = Drift(edges[1:-1].tolist(), (share / share.sum()).tolist())
    drift.add(rng.normal(size=MIN_VALUES - 500).tolist())
    assert drift.index() is None
    drift.add(rng.normal(size=WINDOW).tolist())
    assert drift.index() < 0.02
    drift.add(rng.normal(1, size=WINDOW).tolist())
    assert drift.index() > 0.1
    for _ in range(3):
        drift.add(rng.normal(size=WINDOW).tolist())
    assert drift.index() < 0.02


def test_values_beyond_the_reference_count_in_its_outer_bins() -> None:
    drift = Drift([1.0], [0.5, 0.5])
    drift.add([-7.0] * MIN_VALUES + [9.0] * MIN_VALUES)
    assert drift.index() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("edges", "share"), [([0.0, 1.0], [0.5, 0.5]), ([2.0, 1.0], [0.2, 0.3, 0.5])])
def test_a_reference_that_is_none_is_refused(edges: list[float], share: list[float]) -> None:
    with pytest.raises(ValueError, match="give ascending edges"):
        Drift(edges, share)


def test_what_a_request_pays(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 50 microseconds with numbers in files, in the best of several tries, since other processes take the cores."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr("prometheus_client.values.ValueClass", MultiProcessValue())
    item = Item(item_id="i", score=0.5, retrieval_score=0.5, source="retrieval", tasks={"click": 0.5})
    stages_ms = {"state": 0.1, "graphs": 1.0, "rerank": 0.2, "journal": 0.1}
    with own_endpoint(bundle_folder, tmp_path / "live") as endpoint:
        metrics, bundle = Metrics(endpoint.models), endpoint.models.live
        metrics._drift_of = Drift([0.25, 0.5, 0.75], [0.25] * 4)
        answer = Recommendations(
            request_id="r",
            items=[item] * 10,
            fallback=None,
            flags=[],
            unknown_items=[],
            model="m",
            version=bundle.version,
            arm="live",
        )
        costs = []
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(500):
                metrics.served(answer, bundle, stages_ms, 0)
                metrics.request("/recommend", 200, 0.002)
            costs.append((time.perf_counter() - began) / 500)
    assert list(tmp_path.glob("histogram_*.db"))
    assert min(costs) < 50e-6, f"{min(costs) * 1e6:.1f} microseconds"
