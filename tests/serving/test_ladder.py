"""Every rung of the ladder, every flag, and exactly k items whatever fails."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cascade_oracle import ITEMS, Case, expected, rungs
from tiny_bundle import COVISIT_IN, NUM_CANDIDATES, NUM_ITEMS, POPULAR_P, SEGMENT_VP, item_text, timeline_of

from serving.answers import Recommendations
from serving.bundle.bundle import Bundle
from serving.bundle.stand_ins import StandIns
from serving.cascade.answer import answer
from serving.cascade.asked import resolve
from serving.recommend import recommend
from serving.schema import Query
from serving.state.store import Live, LiveEvent


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


def without_model(bundle: Bundle, query: Query, live: Live | None = Live()) -> Recommendations:  # noqa: B008
    asked, rng = resolve(bundle, query, live), np.random.default_rng(0)
    return answer(bundle, query, asked, None, request_id="r", arm="live", rng=rng, stages_ms={})


def ids(found: Recommendations) -> list[str]:
    return [item.item_id for item in found.items]


@pytest.mark.parametrize("k", [1, 3, 17, NUM_ITEMS])
@pytest.mark.parametrize("user", [2, 7, 13])
def test_a_failing_model_gives_the_rungs_in_their_order(bundle: Bundle, user: int, k: int) -> None:
    found = without_model(bundle, Query(user_id=f"user-{user - 2}", k=k))
    ladder = [(source, item) for source, items in rungs(user, timeline_of(user)) for item in items]
    new = [(source, item_text(item)) for source, item in ladder if item not in timeline_of(user)]
    wanted = list({item: (source, item) for source, item in reversed(new)}.values())
    wanted.sort(key=new.index)
    assert [(item.source, item.item_id) for item in found.items][: len(wanted)] == wanted[:k]
    assert len(set(ids(found))) == k
    assert found.flags[0] == "model_failed"
    assert found.fallback == found.items[-1].source or "filters_relaxed" in found.flags


def test_session_of_the_newest_item_first(bundle: Bundle) -> None:
    found = without_model(bundle, Query(history=["item-10", "item-20"], k=4))
    assert ids(found) == ["item-21", "item-11", "item-22", "item-12"]  # .5, .5 x .8, .25, .25 x .8
    assert [item.score for item in found.items] == pytest.approx([0.5, 0.4, 0.25, 0.2])
    assert [item.reason for item in found.items[:2]] == ["often together with Title 22", "often together with Title 12"]
    assert found.fallback == "session"


def test_an_item_near_two_is_due_to_the_one_that_says_more(bundle: Bundle) -> None:
    """item-12 is next but one after item-10 and next after item-11, which is older: .25 against .5 x .8."""
    best = without_model(bundle, Query(history=["item-11", "item-10"], k=1)).items[0]
    assert (best.item_id, best.reason) == ("item-12", "often together with Title 13")
    assert best.score == pytest.approx(0.25 + 0.5 * 0.8)


def test_only_the_newest_items_count(bundle: Bundle) -> None:
    """Twenty newer ones hide the first: its neighbour comes by popularity."""
    history = [item_text(2), *[item_text(item) for item in range(20, 40)]]
    sources = {item.item_id: item.source for item in without_model(bundle, Query(history=history, k=15)).items}
    assert sources[item_text(int(COVISIT_IN[2][0]))] == "popularity"


def idle(bundle: Bundle) -> Bundle:
    """Nobody has done anything."""
    place = bundle.users.column_names.index("length")
    return dataclasses.replace(bundle, users=bundle.users.set_column(place, "length", [np.zeros(len(bundle.users), np.int64)]))


def test_of_a_forgotten_user_not_even_the_segment_is_read(bundle: Bundle) -> None:
    asked = resolve(bundle, query := Query(user_id="user-1", k=5), Live(forgotten_ms=2**53))
    found = answer(bundle, query, asked, None, request_id="r", arm="live", rng=np.random.default_rng(0), stages_ms={})
    assert ids(found) == [item_text(item) for item in POPULAR_P[:5]]
    assert (found.fallback, found.flags) == ("popularity", ["empty_history", "model_failed"])


def test_a_known_user_without_a_history_gets_what_is_popular_there(bundle: Bundle) -> None:
    found = without_model(idle(bundle), Query(user_id="user-1", k=5))
    assert ids(found) == [item_text(item) for item in SEGMENT_VP[3][:5]]
    assert found.items[0].reason == "popular where country is bb"
    assert (found.fallback, found.flags) == ("segment", ["empty_history", "model_failed"])


@pytest.mark.parametrize(("who", "flag"), [({"user_id": "nobody"}, "unknown_user"), ({"history": []}, "empty_history")])
def test_nothing_to_go_by_gives_what_is_popular(bundle: Bundle, who: dict[str, Any], flag: str) -> None:
    found = recommend(bundle, Query(**who, k=25))
    assert ids(found) == [item_text(item) for item in POPULAR_P[:25]]
    assert {(item.source, item.reason) for item in found.items} == {("popularity", "popular")}
    assert (found.fallback, found.flags) == ("popularity", [flag])


def test_a_history_of_unknown_items_is_empty_and_they_are_named(bundle: Bundle) -> None:
    found = recommend(bundle, Query(history=["lost", "gone", "lost"], k=3))
    assert (found.flags, found.unknown_items) == (["empty_history"], ["lost", "gone"])
    assert len(found.items) == 3


def test_an_unknown_user_with_live_events_gets_the_model(bundle: Bundle) -> None:
    live = Live((LiveEvent("e", "item-3", "click", 1),))
    asked = resolve(bundle, query := Query(user_id="nobody", k=3), live)
    from serving.cascade.score import score

    found = answer(bundle, query, asked, score(bundle, [(asked, 3)])[0], request_id="r", arm="live",
                   rng=np.random.default_rng(0), stages_ms={})  # fmt: skip
    assert [(item.item_id, item.source) for item in found.items] == expected(Case(1, [5], 3))
    assert (found.fallback, found.flags) == (None, [])


def test_unreadable_state_is_flagged_and_the_bundle_answers(bundle: Bundle) -> None:
    found = without_model(bundle, Query(user_id="user-2", k=2), live=None)
    assert found.flags == ["state_unavailable", "model_failed"]


def test_more_than_the_model_finds_is_filled_up(bundle: Bundle) -> None:
    found = recommend(bundle, Query(user_id="user-0", k=NUM_CANDIDATES + 10))
    assert [item.source for item in found.items].index("session") == NUM_CANDIDATES
    assert found.flags == []
    assert [(item.item_id, item.source) for item in found.items] == expected(Case(2, timeline_of(2), NUM_CANDIDATES + 10))


def test_k_above_the_catalogue_gives_all_of_it(bundle: Bundle) -> None:
    found = recommend(bundle, Query(user_id="user-3", k=200))
    assert sorted(ids(found)) == sorted(item_text(item) for item in ITEMS)
    assert found.flags == ["filters_relaxed", "short"]


def test_nothing_is_allowed(bundle: Bundle) -> None:
    found = recommend(bundle, Query(user_id="user-3", allow=[], k=5))
    assert (found.items, found.fallback, found.flags) == ([], None, ["short"])


def test_beyond_the_popular_ones_comes_the_rest_by_count(bundle: Bundle) -> None:
    """A large catalogue: its stand-ins know three items only, and none is near another."""
    few = StandIns(
        np.array([9, 7, 5], np.int32), np.empty((0, 0), np.int32),
        np.zeros(len(COVISIT_IN) + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32),
    )  # fmt: skip
    count = np.where(np.arange(len(bundle.items)) == 30, 8, 1)
    items = bundle.items.set_column(bundle.items.column_names.index("train_count"), "train_count", [count])
    found = without_model(dataclasses.replace(bundle, stand_ins=few, items=items), Query(user_id="user-0", k=6))
    assert ids(found) == [item_text(item) for item in (9, 7, 5, 30, 2, 3)]
    assert [item.reason for item in found.items[2:4]] == ["popular", "of the catalogue"]


def test_a_bundle_without_segments_goes_on_to_popularity(make_bundle: Callable[..., Path]) -> None:
    bundle = Bundle.load(make_bundle())
    plain = dataclasses.replace(bundle, facts=bundle.facts.model_copy(update={"segment": None}))
    found = without_model(idle(plain), Query(user_id="user-1", k=5))
    assert found.fallback == "popularity"
    assert ids(found) == [item_text(item) for item in POPULAR_P[:5]]


def test_the_models_reason_names_the_newest_item(bundle: Bundle) -> None:
    best = recommend(bundle, Query(history=["item-5", "item-3"], k=1)).items[0]
    assert best.reason == "the model's choice: likely next after Title 5"


def test_without_the_segments_names_the_reason_names_the_feature(bundle: Bundle) -> None:
    unnamed = dataclasses.replace(bundle, facts=bundle.facts.model_copy(update={"segment_values": ()}))
    found = without_model(idle(unnamed), Query(user_id="user-1", k=1))
    assert found.items[0].reason == "popular with users of the same country"


def test_the_command_shows_lists_of_several_sources(bundle: Bundle) -> None:
    from rich.console import Console

    from pipelines.show import show_items

    console = Console(record=True, width=200)
    show_items(console, recommend(bundle, Query(user_id="user-11", k=40)).model_dump())
    text = console.export_text()
    assert text.count("Title ") == 40
    assert "filled up from: segment" in text
    assert "flags: filters_relaxed" in text
