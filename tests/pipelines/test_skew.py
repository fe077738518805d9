"""`recsys skew`: no skew where there is none, and the one that is planted where it was planted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_log import BY_USER, CUT_MS, FEATURES, HOUR, Served, live_of, record, write_journal

from pipelines.skew.measure import Limits, Skew, measure
from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.state.store import Live

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
MOMENTS = [CUT_MS + hours * HOUR for hours in (2, 20, 40)]


@pytest.fixture(scope="module")
def bundle(served: Served) -> Bundle:
    return Bundle.load(served.bundle)


@pytest.fixture
def records(bundle: Bundle) -> list[dict[str, Any]]:
    return [record(bundle, f"u{user}", moment) for user in range(6) for moment in MOMENTS]


Measured = Callable[..., Skew]


@pytest.fixture
def measured(served: Served, tmp_path: Path) -> Measured:
    def run(records: list[dict[str, Any]], **limits: float) -> Skew:
        write_journal(tmp_path / "live", records)
        return measure(served.data, tmp_path / "live", [served.bundle], Limits(**limits))

    return run


def test_without_skew_there_is_none(records: list[dict[str, Any]], measured: Measured) -> None:
    found = measured(records, histories=0, features=0)
    assert found.failures == []
    assert (found.requests, found.histories.requests, found.other_versions, found.not_in_log) == (18, 18, 0, 0)
    assert found.histories.share == found.behaviours.share == 0
    assert found.behaviours.requests == 18
    assert {name: each.largest for name, each in found.features.items() if name in BY_USER} == dict.fromkeys(BY_USER, 0.0)
    assert set(found.features) == set(FEATURES)
    assert all(each.largest < 1e-6 and each.count == 18 * 25 for each in found.scores.values())
    values = np.array([np.std(np.concatenate([each["dense"][name] for each in records])) for name in BY_USER])
    assert (values > 0.05).all(), "features that are all alike prove nothing"


def test_what_is_as_of_the_bundle_is_told_apart(records: list[dict[str, Any]], measured: Measured) -> None:
    """Others' clicks since the bundle are not seen: that shows, and fails only where it is asked for."""
    found = measured(records)
    assert found.features["item_rate"].share > 0.3
    assert found.by_user == set(BY_USER)
    assert [sentence.split(":")[0] for sentence in measured(records, stale_features=0.1).failures] == [
        "feature item_rate", "feature of_country",
    ]  # fmt: skip


def test_a_changed_value_is_found_in_the_feature_and_in_the_scores(records: list[dict[str, Any]], measured: Measured) -> None:
    for each in records[:9]:
        each["dense"]["user_likes"] = [value + 1 for value in each["dense"]["user_likes"]]
    found = measured(records)
    assert found.features["user_likes"].share == 0.5
    assert found.features["user_likes"].largest == pytest.approx(1, abs=1e-5)
    assert found.features["user_clicks"].share == 0
    assert found.scores["like"].share > 0.1
    assert {"feature user_likes", "probability of like"} <= {sentence.split(":")[0] for sentence in found.failures}


def test_an_event_that_never_reached_the_endpoint_is_found(bundle: Bundle, records: list[Any], measured: Measured) -> None:
    late = MOMENTS[2]
    assert len(live_of("u1", late).events) > len(live_of("u1", late, left_out=0).events)
    lossy = record(bundle, "u1", late, live=live_of("u1", late, left_out=0))
    found = measured([each for each in records if each["request_id"] != lossy["request_id"]] + [lossy])
    assert found.histories.differing == (lossy["request_id"],)
    assert found.features["session_position"].largest in (0, 1)
    assert any(found.features[name].share > 0 for name in BY_USER)
    assert max(each.largest for each in found.scores.values()) < 1e-6  # the runtime did its part right
    assert found.failures[0].startswith("histories: 5.56% differ")


def test_of_a_forgotten_user_neither_vector_nor_counts_are_read(bundle: Bundle) -> None:
    late = MOMENTS[2]
    forgotten, nobody, known = (
        record(bundle, user, late, live=live)
        for user, live in (("u1", Live((), CUT_MS)), ("a stranger", Live()), ("u1", Live()))
    )
    for name in ("history", "dense", "tasks"):
        assert forgotten[name] == nobody[name], name
        assert known[name] != forgotten[name], name


def test_a_behaviour_that_was_lost_is_found(records: list[dict[str, Any]], measured: Measured) -> None:
    each = next(each for each in records if any(each["behaviours"]))
    each["behaviours"] = [0] * len(each["behaviours"])
    assert measured(records).behaviours.differing == (each["request_id"],)


def test_another_answer_to_the_same_inputs_is_found(records: list[dict[str, Any]], measured: Measured) -> None:
    records[0]["tasks"]["click"][3] += 0.01
    found = measured(records)
    assert found.scores["click"].largest == pytest.approx(0.01, abs=1e-5)
    assert found.scores["click"].share == 1 / (18 * 25)
    assert found.scores["like"].share == 0
    assert [sentence.split(":")[0] for sentence in found.failures] == ["probability of click"]


def test_what_cannot_be_judged_is_counted(bundle: Bundle, records: list[dict[str, Any]], measured: Measured) -> None:
    records[0] |= {"version": "0" * 16}
    records[1] |= {"user_id": None}
    records[2] |= {"known": False}
    records[3]["tasks"] = {task: [None] * 25 for task in bundle.facts.tasks}  # the ranker did not see its items
    found = measured([*records, record(bundle, "u0", CUT_MS + 1000 * HOUR)])
    assert (found.requests, found.other_versions, found.not_in_log, found.histories.requests) == (19, 1, 3, 15)
    assert found.scores["click"].count == 17 * 25


def test_the_command_says_it_and_its_exit_code_too(
    served: Served, records: list[dict[str, Any]], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    words = [
        "skew", "--config", str(served.yaml), "--workspace", str(served.workspace.root), "--live", str(tmp_path / "live"),
        "--bundle", str(served.bundle),
    ]  # fmt: skip
    empty = cli(*words)
    assert empty.failed
    assert "has no logged requests: serve with `logged_requests` above 0" in empty.said
    write_journal(tmp_path / "live", records)
    done = cli(*words, "--json")
    assert done.code == 0, done.said
    assert json.loads(done.out)["failures"] == []
    assert json.loads((served.workspace.root / "skew.json").read_text()) == json.loads(done.out)
    assert "feature item_rate (as of the bundle)" in done.said
    records[0]["dense"]["taste"][0] = 9.0
    write_journal(tmp_path / "live", records)
    done = cli(*words, "--features", "0")
    assert done.code == 1
    assert "feature taste: 0.22% differ, the limit is 0.00%" in done.said


def test_a_broken_line_is_named(served: Served, records: list[dict[str, Any]], measured: Measured) -> None:
    del records[1]["items"]
    with pytest.raises(InputError, match=r"\.ndjson, line 2: items: Field required: this is no logged request"):
        measured(records)
    records[0]["dense"]["taste"] = [0.5]
    with pytest.raises(InputError, match="taste has 1 values for 25 items"):
        measured(records)
