"""Filters act inside retrieval: the answer is what looking at every item gives, whatever is filtered, and k items come."""

from pathlib import Path

import numpy as np
import pytest
from cascade_oracle import COLOUR, ITEMS, Case, expected, outside
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import COUNTRIES, NUM_USERS, item_text, timeline_of

from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.cascade.asked import resolve
from serving.cascade.filters import bias_of
from serving.catalogue.catalogue import Catalogue
from serving.recommend import recommend, recommend_many
from serving.schema import Query
from serving.state.store import Live

HOUR_MS = 3_600_000
# Of the 40 items every 7th is sold out, every 5th is sold from hour 2 on, every 3rd until hour 3, every 4th in aa alone.
SOLD_OUT = {item for item in ITEMS if item % 7 == 0}
LATER = {item for item in ITEMS if item % 5 == 0}
ENDING = {item for item in ITEMS if item % 3 == 0}
ONLY_AA = {item for item in ITEMS if item % 4 == 0}


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    path = tmp_path_factory.mktemp("catalogue") / "sold.csv"
    lines = ["item_id,in_stock,available_from,expires,regions"]
    for item in ITEMS:
        begins, ends = 2 * HOUR_MS if item in LATER else "", 3 * HOUR_MS if item in ENDING else ""
        lines.append(f"{item_text(item)},{item not in SOLD_OUT},{begins},{ends},{'aa' if item in ONLY_AA else ''}")
    path.write_text("\n".join(lines) + "\nof-another-shop,true,,,\n")
    return Catalogue(path)


def unsold(hour: float) -> set[int]:
    return SOLD_OUT | (LATER if hour < 2 else set()) | (ENDING if hour >= 3 else set())


some_items = st.lists(st.sampled_from(ITEMS), max_size=60)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Query, Case]:
    hour = draw(st.sampled_from([0, 1.999, 2, 2.5, 3, 9]))
    k, filter_seen = draw(st.integers(1, 45)), draw(st.booleans())
    exclude, allow = draw(some_items), draw(st.none() | some_items)
    colours = draw(st.none() | st.lists(st.sampled_from(["red", "green", "blue"]), min_size=1))
    region = draw(st.none() | st.sampled_from([*COUNTRIES, "nowhere"]))
    never = set(exclude)
    never |= outside(lambda item: allow is None or item in allow)
    never |= outside(lambda item: colours is None or COLOUR[item] in colours)
    never |= outside(lambda item: region in (None, "aa") or item not in ONLY_AA)
    user = draw(st.none() | st.integers(2, NUM_USERS + 1))
    history = draw(some_items) if user is None else timeline_of(user)
    who = {"history": [item_text(item) for item in history]} if user is None else {"user_id": f"user-{user - 2}"}
    asked = Query(
        **who, k=k, filter_seen=filter_seen, exclude=[item_text(item) for item in exclude], categories=colours, region=region,
        allow=None if allow is None else [item_text(item) for item in allow], time_ms=int(hour * HOUR_MS),
    )  # fmt: skip
    return asked, Case(user or 1, history, k, never, unsold(hour), filter_seen)


@settings(max_examples=150, deadline=None)
@given(cases=st.lists(questions(), min_size=1, max_size=4))
def test_an_answer_is_what_looking_at_every_item_gives(
    bundle: Bundle, catalogue: Catalogue, cases: list[tuple[Query, Case]]
) -> None:
    """Asked together, so that questions with filters of their own and without share a run of the graphs."""
    answers = recommend_many(bundle, [query for query, _ in cases], catalogue=catalogue)
    for (_, case), answer in zip(cases, answers, strict=True):
        assert [(item.item_id, item.source) for item in answer.items] == expected(case)
        permitted = len(set(ITEMS) - case.never)
        assert len(answer.items) == min(case.k, permitted)
        assert ("short" in answer.flags) == (permitted < case.k)
        strict = len(set(ITEMS) - case.never - case.unsold - case.seen)
        assert ("filters_relaxed" in answer.flags) == (strict < min(case.k, permitted))


def test_questions_without_filters_of_their_own_share_one_row(bundle: Bundle, catalogue: Catalogue) -> None:
    def bias(*queries: Query) -> np.ndarray:
        return bias_of([resolve(bundle, query, Live(), catalogue).filters for query in queries])

    first = Query(user_id="user-0", time_ms=HOUR_MS)
    others = [Query(user_id="user-1", exclude=["item-1"], time_ms=HOUR_MS + 59_000), Query(history=[], time_ms=HOUR_MS // 2)]
    assert bias(first, *others) is bias(first)
    assert bias(first).shape == (1, 42)
    assert bias(first, Query(user_id="user-0", time_ms=2 * HOUR_MS)).shape == (2, 42)  # another hour, other items
    coloured = [Query(user_id=f"user-{user}", categories=["red", "blue"], region="bb", time_ms=0) for user in range(3)]
    assert bias(*coloured) is bias(*coloured[::-1])
    with pytest.raises(ValueError, match="read-only"):
        bias(first)[:] = 0


def test_what_was_relaxed_stands_at_the_end_and_says_so(bundle: Bundle, catalogue: Catalogue) -> None:
    sold, seen, gone = 4, 8, 14  # of these, one is sold, one is seen, one is sold out
    assert gone in SOLD_OUT
    query = Query(
        history=[item_text(seen)], allow=[item_text(item) for item in (gone, seen, sold)], k=5, time_ms=int(2.5 * HOUR_MS)
    )
    answer = recommend_many(bundle, [query], catalogue=catalogue)[0]
    assert [item.item_id for item in answer.items] == [item_text(item) for item in (sold, seen, gone)]
    assert answer.flags == ["filters_relaxed", "short"]
    assert [item.reason.partition("; ")[2] for item in answer.items] == ["", "seen before", "not on sale now"]


def test_categories_that_the_bundle_lacks(bundle: Bundle) -> None:
    def colours(*names: str) -> set[str]:
        answer = recommend(bundle, Query(history=["item-1"], categories=list(names), k=30, filter_seen=False))
        return {COLOUR[int(item.item_id.removeprefix("item-")) + 2] for item in answer.items}

    assert colours("red", "mauve") == {"red"}
    with pytest.raises(
        InputError, match=r"categories is \['mauve'\]: name at least one that the bundle has: red, green, blue$"
    ):
        colours("mauve")
    plain = bundle.facts.model_copy(update={"category": {}})
    from dataclasses import replace

    with pytest.raises(InputError, match="the items of this bundle have no categories"):
        recommend(replace(bundle, facts=plain), Query(history=["item-1"], categories=["red"]))


def test_without_a_catalogue_every_region_sells_everything(bundle: Bundle) -> None:
    plain, there = (recommend(bundle, Query(history=["item-1"], region=region, k=20)) for region in (None, "bb"))
    assert plain.items == there.items


def test_an_allowed_item_that_the_bundle_lacks_is_named(bundle: Bundle) -> None:
    answer = recommend(bundle, Query(history=["item-1"], allow=["item-2", "item-x"], k=2))
    assert [item.item_id for item in answer.items] == ["item-2"]
    assert answer.unknown_items == ["item-x"]
