"""The journal of an endpoint, read by `recsys prepare` with the config of docs/state.md."""

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.prepare import Prepared, prepare_run
from pipelines.workspace import Workspace
from recsys.columns import ITEM, POSITION, PROPENSITY, SLOT, TIME_MS, USER, label
from recsys.config import load
from recsys.data.engines.threads import Threads
from recsys.dataset import Dataset
from serving.endpoint import Endpoint
from serving.models.deployment import Deployment, Placed, write
from serving.schema import Event, Events, Query
from serving.settings import Settings

DOCS = Path(__file__).parents[2] / "docs" / "state.md"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
USERS, LISTS, K = 6, 20, 4
KINDS = ("click", "like", "purchase")


@pytest.fixture(scope="module")
def live(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's folder: of each list its first item was clicked, of every second one liked, of every fourth bought."""
    live = tmp_path_factory.mktemp("read-back") / "live"
    write(Deployment(live=Placed(folder=bundle_folder)), live)
    start_ms = int(time.time() * 1000) - LISTS * DAY_MS

    async def main() -> None:
        endpoint = Endpoint(Settings(live=live))
        for number in range(LISTS):
            for user in range(USERS):
                now_ms, user_id = start_ms + number * DAY_MS + user, f"user-{user}"
                shown = await endpoint.recommend(Query(user_id=user_id, k=K, time_ms=now_ms, filter_seen=False))
                for place, kind in enumerate(KINDS):
                    if number % 2**place == 0:
                        item, time_ms = shown.items[0].item_id, now_ms + (place + 1) * HOUR_MS
                        event = Event(user_id=user_id, item_id=item, event=kind, time_ms=time_ms, request_id=shown.request_id)
                        await endpoint.add(Events(events=[event]))
        await endpoint.recommend(Query(history=["item-1"], k=K))
        await endpoint.forget("user-5")
        await endpoint.close()

    asyncio.run(main())
    for path in live.glob("journal/events/*/*"):  # killed while it wrote
        with path.open("a") as file:
            file.write('{"user_id":"user-1","item_id":"it')
    command = [sys.executable, "-m", "serving.journal", str(live / "journal")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=DOCS.parents[1])
    assert done.stdout.count("ended in half a line, which was cut off") == 3
    return live


@pytest.fixture(scope="module")
def prepared(live: Path) -> tuple[Prepared, Dataset]:
    config_file = live / "journal.yaml"
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    config_file.write_text(text)
    workspace = Workspace(live.parent / "run")
    found = prepare_run(load(config_file).data, live / "journal", workspace, engine=Threads())
    return found, Dataset(workspace.dataset)


def test_all_but_the_forgotten_are_rows(prepared: tuple[Prepared, Dataset]) -> None:
    report: dict[str, Any] = prepared[0].manifest["report"]
    events = USERS * (LISTS + LISTS // 2 + LISTS // 4)
    assert report["rows_read"] == USERS * LISTS * K + events + 1
    assert report["quarantined_by_reason"] == {"item id is empty": 1}


def test_clicks_are_the_history(prepared: tuple[Prepared, Dataset]) -> None:
    data = prepared[1]
    assert {str(data.user_ids[user]) for user in range(2, data.num_users)} == {f"user-{user}" for user in range(USERS)}
    assert data.length_U[2:].tolist() == [LISTS] * USERS


def test_impressions_are_the_examples_with_slot_propensity_and_what_followed(prepared: tuple[Prepared, Dataset]) -> None:
    examples = prepared[1].examples
    slot_X = np.asarray(examples[SLOT])
    label_X = {kind: np.asarray(examples[label(kind)]) for kind in KINDS}
    shown_X = ~np.isnan(label_X["click"])
    assert 0 < shown_X.sum() <= USERS * LISTS * K
    assert set(slot_X[shown_X].tolist()) == set(range(K))
    assert np.isnan(np.asarray(examples[PROPENSITY], float)[shown_X]).all()  # no list was explored
    assert (label_X["click"][shown_X] == (slot_X[shown_X] == 0)).all()
    like_X = label_X["like"][shown_X & (slot_X == 0)]
    assert 0.4 <= like_X.mean() <= 0.6
    assert (label_X["like"][shown_X & (slot_X > 0)] == 0).all()
    assert len({len(np.asarray(examples[name])) for name in (USER, ITEM, TIME_MS, POSITION)}) == 1
