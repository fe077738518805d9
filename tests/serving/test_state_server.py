"""Real servers: a posted event counts at once, survives kill -9, and answers go on while Redis is away."""

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from redis_server import Server, redis_server, running_redis

from benchmarks.crash import crash
from benchmarks.redis_away import is_good, under_load
from serving.models.deployment import Deployment, Placed, write
from serving.run import running_service
from serving.settings import Settings

__all__ = ["redis_server", "running_redis"]


def send(url: str, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url + path, data, {"Content-Type": "application/json"}, method=method), timeout=10) as response:
        found: dict[str, Any] = json.load(response)
    return found


def items(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_an_event_changes_the_next_answer_and_a_forgotten_user_has_none(bundle_folder: Path, tmp_path: Path) -> None:
    with running_service(bundle_folder, live=tmp_path / "live") as url:
        ask = {"user_id": "user-3", "k": 5, "explain": True}
        before = send(url, "/recommend", ask)
        event = {"id": "e-1", "user_id": "user-3", "item_id": items(before)[0], "request_id": before["request_id"]}
        first, again = (send(url, "/events", {"events": [event]}) for _ in range(2))
        after = send(url, "/recommend", ask)
        forgotten = send(url, "/users/user-3", method="DELETE")
        nothing = send(url, "/recommend", ask)
        send(url, "/events", {"events": [event | {"id": "e-2"}]})
        new = send(url, "/recommend", ask)
    assert (first["accepted"], first["duplicates"], first["flags"]) == (1, 0, [])
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    assert items(before)[0] not in items(after)
    assert len(items(after)) == 5
    assert after["explanation"]["history"][-1]["item_id"] == items(before)[0]
    assert after["explanation"]["history"][-1]["live"]
    assert forgotten == {"user_id": "user-3", "events": 1, "flags": []}
    assert (nothing["explanation"]["history"], nothing["flags"]) == ([], ["empty_history"])
    assert [entry["item_id"] for entry in new["explanation"]["history"]] == [items(before)[0]]


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_every_acknowledged_event_survives_kill_9_and_none_twice(
    request: pytest.FixtureRequest, bundle_folder: Path, tmp_path: Path, store: str
) -> None:
    state = store if store == "sqlite" else request.getfixturevalue("redis_server").url
    settings = Settings(live=tmp_path / "live", state=state, workers=2, state_timeout_ms=500)
    write(Deployment(live=Placed(folder=bundle_folder)), settings.live)
    poster, journal, kept = crash(settings, posts=600, worker_kills=1 if store == "sqlite" else 0)
    assert poster.refused == []
    assert poster.unanswered > 0  # it was killed while it was asked
    assert len(poster.acknowledged) >= 600
    assert set(poster.acknowledged) <= set(kept)
    assert set(kept) == set(journal)
    assert set(kept.values()) == set(journal.values()) == {1}


def test_answers_go_on_while_redis_is_away_and_the_state_comes_back(redis_server: Server, bundle_folder: Path) -> None:
    found = under_load(bundle_folder, redis_server, rounds=1, up_s=0.7, away_s=1)
    assert found["there"] > 10
    assert is_good(found), found
