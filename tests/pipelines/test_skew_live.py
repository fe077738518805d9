"""`recsys skew` on what a real server logged: none where the log has what was posted, and what it has not is found."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
import pytest
from served_log import BY_USER, CUT_MS, HOUR, Served, log, write_journal

from pipelines.skew.logged import FOLDER
from pipelines.skew.measure import Limits, measure
from serving.answers import Recommendations
from serving.client import Client
from serving.run import running_service
from serving.schema import Event

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
USERS, OTHER = [f"u{n}" for n in range(4)], "u9"
MOMENTS = [CUT_MS + hours * HOUR for hours in (1, 20, 40)]
K = 8


@dataclass(frozen=True)
class Session:
    """What is left of a server: the lines of its journal, and two of the lists, by request id."""

    live: Path
    lines: list[dict[str, Any]]
    unlogged: str  # asked for by someone of whom the log lacks an event
    partly_ranked: Recommendations


@pytest.fixture(scope="module")
def session(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Users do what the log says, as a client posts it, and ask for lists in between."""
    live = tmp_path_factory.mktemp("skew") / "live"
    with running_service(served.bundle, live=live, logged_requests=1.0) as url:
        client = Client(url)
        begin_ms = CUT_MS
        for moment in MOMENTS:
            client.events(*posted(begin_ms, moment))
            shown = [ask(client, user_id=user, time_ms=moment) for user in USERS]
            begin_ms = moment
        ask(client, user_id="a stranger", time_ms=moment)
        ask(client, history=["i1"], time_ms=moment)
        client.events(Event(user_id=OTHER, item_id="i3", event="view", time_ms=moment - HOUR))
        unlogged = ask(client, user_id=OTHER, time_ms=moment)
        client.close()
    return Session(live, list(lines(live)), unlogged.request_id, shown[0])


def ask(client: Client, **fields: Any) -> Recommendations:
    return client.recommend(**fields, context={"page": "p1"}, k=K, filter_seen=False)


def posted(begin_ms: int, end_ms: int) -> list[Event]:
    """A row of the log as its view and what followed, without ids; the view comes last, as it may."""
    rows = log().filter(pl.col("u").is_in([*USERS, OTHER]) & (pl.col("t") >= begin_ms) & (pl.col("t") < end_ms))
    return [
        Event(user_id=row["u"], item_id=row["i"], event=event, time_ms=row["t"])
        for row in rows.iter_rows(named=True)
        for event in ("like", "click", "view")
        if row.get(event, 1)
    ]


def lines(live: Path) -> Iterator[dict[str, Any]]:
    """Read as strictly as other readers of JSON do: NaN is none."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    for path in (live / FOLDER).glob("*.ndjson"):
        yield from (json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines())


def test_what_was_posted_and_is_in_the_log_gives_no_skew(served: Served, session: Session, tmp_path: Path) -> None:
    write_journal(tmp_path, [line for line in session.lines if line["request_id"] != session.unlogged])
    found = measure(served.data, tmp_path, [served.bundle], Limits(histories=0, features=0))
    assert found.failures == []
    assert (found.requests, found.histories.requests, found.not_in_log) == (14, 12, 2)
    assert found.histories.share == found.behaviours.share == 0
    assert found.behaviours.requests == 12
    assert {name: found.features[name].largest for name in BY_USER} == dict.fromkeys(BY_USER, 0.0)
    assert all(each.largest < 1e-6 for each in found.scores.values())
    assert found.features["item_rate"].share > 0.1  # what others did since is not seen
    for user in USERS:  # the lists would differ without what was posted
        first, *_, last = (line for line in session.lines if line["user_id"] == user)
        assert last["history"] != first["history"]
        assert any(first["dense"][name][0] != last["dense"][name][0] for name in BY_USER)


def test_items_that_the_ranker_did_not_see_have_no_probability(served: Served, session: Session) -> None:
    [line] = [line for line in session.lines if line["request_id"] == session.partly_ranked.request_id]
    missing = {task: [value is None for value in values] for task, values in line["tasks"].items()}
    assert set(map(tuple, missing.values())) == {(False,) * 6 + (True,) * 4}
    assert [item.tasks == {} for item in session.partly_ranked.items] == [False] * 6 + [True] * 2
    assert None not in line["value"]
    found = measure(served.data, session.live, [served.bundle], Limits())
    assert {each.count for each in found.scores.values()} == {6 * sum(len(line["items"]) > 0 for line in session.lines)}


def test_an_event_that_the_log_lacks_is_found(served: Served, session: Session, cli: Callable[..., Any]) -> None:
    """The bundle that answered is found in the server's folder."""
    words = ["skew", "--config", str(served.yaml), "--workspace", str(served.workspace.root), "--live", str(session.live)]
    done = cli(*words, "--json")
    found = json.loads(done.out)
    assert (done.code, found["histories"]["examples"]) == (1, [session.unlogged])
    assert found["failures"][0] == "histories: 7.69% differ, the limit is 1.00%"
    assert {name for name in BY_USER if found["features"][name]["share"] > 0} >= {"session_position"}
    assert {name: each["share"] for name, each in found["scores"].items()} == {"click": 0, "like": 0}
