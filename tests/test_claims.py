"""Claims on a real store: one holder at a time whoever asks, a killed holder's claim ends with its lease."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from recsys import track
from recsys.errors import InputError
from recsys.track.claims import claimed

# Adds one to the number in a file, slowly, as whoever reads and writes without holding a claim would get wrong.
ADD = """
import sys, time
from pathlib import Path
from recsys.track.claims import claimed
uri, path, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    with claimed("adding", uri=uri) as claim:
        number = int(path.read_text())
        time.sleep(0.02)
        claim.check()
        path.write_text(str(number + 1))
"""
HOLD = """
import sys, time
from recsys.track.claims import claimed
with claimed("held", lease_s=float(sys.argv[2]), uri=sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def uri(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with track.start_run("seed", "r", data="d", uri=found):  # makes the store's tables before anyone races
        pass
    return found


def python(code: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)


def test_processes_take_turns(uri: str, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    running = [python(ADD, uri, str(count), "5") for _ in range(3)]
    assert [each.wait(timeout=120) for each in running] == [0, 0, 0]
    assert count.read_text() == "15"
    assert [each.name for each in MlflowClient(uri).search_experiments()] == ["seed", "Default"]  # nothing is left to be seen


def test_a_claim_that_is_held_is_refused_with_its_holder(uri: str) -> None:
    with claimed("c", uri=uri) as first, claimed("other", uri=uri):
        assert first.number == 1
        with (
            pytest.raises(InputError, match=f"process {os.getpid()} on .* holds the claim 'c'"),
            claimed("c", wait_s=0, uri=uri),
        ):
            pass
    with claimed("c", wait_s=0, uri=uri) as second:
        assert second.number == 2


def test_an_exception_gives_the_claim_back(uri: str) -> None:
    with pytest.raises(ZeroDivisionError), claimed("c", uri=uri):
        _ = 1 / 0
    with claimed("c", wait_s=0, uri=uri) as after:
        assert after.number == 2


def test_a_killed_holders_claim_ends_with_its_lease(uri: str) -> None:
    lease_s = 3.0
    holder = python(HOLD, uri, str(lease_s))
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        began_s = time.monotonic()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with pytest.raises(InputError, match=f"process {holder.pid} on"), claimed("held", wait_s=0, lease_s=lease_s, uri=uri):
        pass
    with claimed("held", lease_s=lease_s, uri=uri) as mine:
        assert mine.number == 2
        assert lease_s - 1.5 < time.monotonic() - began_s < lease_s + 5


def test_who_is_too_slow_is_told_so(uri: str) -> None:
    with claimed("c", lease_s=0.2, uri=uri) as slow:
        time.sleep(0.25)
        with claimed("c", lease_s=0.2, uri=uri) as next_one:
            next_one.check()
            with pytest.raises(InputError, match=r"took longer than .* another may have it"):
                slow.check()


def test_names_that_differ_by_a_wildcard_of_sql_do_not_meet(uri: str) -> None:
    with claimed("promotion of a-b", uri=uri), claimed("promotion of a_b", wait_s=0, uri=uri) as other:
        assert other.number == 1


def test_a_purged_claim_starts_the_count_again(uri: str, tmp_path: Path) -> None:
    with claimed("c", uri=uri):
        pass
    client = MlflowClient(uri)
    (deleted,) = client.search_experiments(ViewType.DELETED_ONLY)
    client._tracking_client.store._hard_delete_experiment(deleted.experiment_id)  # what `mlflow gc` does
    with claimed("c", wait_s=0, uri=uri) as again:
        assert again.number == 1
