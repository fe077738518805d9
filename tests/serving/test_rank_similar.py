"""Scores of given items, and the items most like one, against plain loops."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import NUM_CANDIDATES, POPULAR_P, ROWS, SIMILARITY_NN, VECTOR_ND, item_text, probabilities, timeline_of

from recsys.errors import InputError
from serving.answers import Ranked
from serving.bundle.bundle import Bundle
from serving.cascade.asked import resolve
from serving.cascade.rank import rank
from serving.cascade.similar import similar
from serving.schema import RankQuery, SimilarQuery
from serving.state.store import Live


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


def ranked(bundle: Bundle, **asked: Any) -> Ranked:
    query = RankQuery(**asked)
    return rank(bundle, query, resolve(bundle, query, Live()), request_id="r", arm="live")


def ids(found: Any) -> list[str]:
    return [item.item_id for item in found.items]


@pytest.mark.parametrize("count", [1, NUM_CANDIDATES, NUM_CANDIDATES + 1, 40])
def test_given_items_by_value(bundle: Bundle, count: int) -> None:
    """Seen ones too: 13 has most of them behind it."""
    items = list(range(2, 2 + count))
    value = {item: (p := probabilities(13, 8, item))[0] + p[1] / 2 for item in items}
    found = ranked(bundle, user_id="user-11", items=[item_text(item) for item in items])
    assert ids(found) == [item_text(item) for item in sorted(items, key=lambda item: -round(value[item], 5))]
    for item in found.items:
        dense = int(item.item_id.removeprefix("item-")) + 2
        assert item.score == pytest.approx(value[dense])
        assert list(item.tasks.values()) == pytest.approx(probabilities(13, 8, dense))
        assert (item.source, item.retrieval_score) == ("caller", None)


def test_unknown_items_are_named_and_double_ones_counted_once(bundle: Bundle) -> None:
    found = ranked(bundle, history=["lost", "item-1"], items=["item-4", "gone", "item-4", "lost"])
    assert (ids(found), found.unknown_items, found.flags) == (["item-4"], ["lost", "gone"], [])
    nothing = ranked(bundle, user_id="nobody", items=["gone"])
    assert (nothing.items, nothing.unknown_items, nothing.flags) == ([], ["gone"], ["unknown_user"])


def test_without_a_ranker_by_the_retrieval_score(make_bundle: Callable[..., Path]) -> None:
    """More items than the graph has places for, and one of them in the history; a generator has no say."""
    bundle = Bundle.load(make_bundle(tasks=(), beam=6))
    items = list(range(2, 2 + NUM_CANDIDATES + 7))
    found = ranked(bundle, history=["item-3"], items=[item_text(item) for item in items])
    wanted = sorted(items, key=lambda item: -SIMILARITY_NN[5, item])
    assert ids(found) == [item_text(item) for item in wanted]
    assert [item.retrieval_score for item in found.items] == pytest.approx([SIMILARITY_NN[5, item] for item in wanted])
    assert [item.score for item in found.items] == [item.retrieval_score for item in found.items]


def test_a_failing_model_leaves_the_order_of_popularity(bundle: Bundle, make_bundle: Callable[..., Path]) -> None:
    """The graph of another bundle wants a context that this one does not give."""
    other = ort.InferenceSession(make_bundle(context=("hour",)) / "ranking.onnx")
    found = ranked(dataclasses.replace(bundle, ranking=other), user_id="user-1", items=["item-1", "item-6", "item-2", "item-5"])
    assert ids(found) == ["item-2", "item-6", "item-1", "item-5"]
    assert [POPULAR_P.tolist().index(int(each[5:]) + 2) for each in ids(found)] == [1, 3, 20, 22]
    assert found.flags == ["model_failed"]
    assert {item.score for item in found.items} == {0.0}


def test_a_known_user_is_read_with_the_timeline(bundle: Bundle) -> None:
    [item] = ranked(bundle, user_id="user-2", items=["item-7"]).items
    assert list(item.tasks.values()) == pytest.approx(probabilities(4, len(timeline_of(4)), 9))


def cosine(one: int, other: int) -> float:
    a, b = VECTOR_ND[one].astype(float), VECTOR_ND[other].astype(float)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@settings(max_examples=50, deadline=None)
@given(item=st.integers(2, ROWS - 1), k=st.integers(1, 60), excluded=st.sets(st.integers(2, ROWS - 1)))
def test_the_nearest_items_by_cosine(bundle: Bundle, item: int, k: int, excluded: set[int]) -> None:
    query = SimilarQuery(item_id=item_text(item), k=k, exclude=[*map(item_text, excluded), "unheard-of"])
    found = similar(bundle, query, bundle.no_bias_1I)
    others = sorted(set(range(2, ROWS)) - excluded - {item}, key=lambda other: -cosine(item, other))[:k]
    assert ids(found) == [item_text(other) for other in others]
    assert [each.score for each in found.items] == pytest.approx([cosine(item, other) for other in others], abs=1e-6)


def test_blocks_half_precision_and_a_vector_of_zeros_change_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = similar(bundle, SimilarQuery(item_id="item-3", k=10), bundle.no_bias_1I)
    monkeypatch.setattr("serving.cascade.similar.BLOCK", 7)
    half_ID = VECTOR_ND.astype(np.float16)
    half_ID[30] = 0
    half = dataclasses.replace(bundle, vector_ID=half_ID)
    found = similar(half, SimilarQuery(item_id="item-3", k=10, exclude=["item-28"]), bundle.no_bias_1I)
    assert ids(found) == [each for each in ids(whole) if each != "item-28"][:10] or len(ids(found)) == 10
    zeros = similar(half, SimilarQuery(item_id="item-28", k=3), bundle.no_bias_1I)
    assert [each.score for each in zeros.items] == [0, 0, 0]


def test_items_that_are_not_sold_are_not_named(bundle: Bundle) -> None:
    bias_1I = bundle.no_bias_1I.copy()
    best = similar(bundle, SimilarQuery(item_id="item-3", k=2), bias_1I)
    bias_1I[0, int(best.items[0].item_id.removeprefix("item-")) + 2] = -np.inf
    assert ids(similar(bundle, SimilarQuery(item_id="item-3", k=1), bias_1I)) == [best.items[1].item_id]


def test_an_unknown_item_has_nothing_like_it(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"^item_id is 'gone': this bundle does not have it"):
        similar(bundle, SimilarQuery(item_id="gone"), bundle.no_bias_1I)
    with pytest.raises(InputError, match=r"^k is 201: ask for 1 to 200"):
        similar(bundle, SimilarQuery(item_id="item-3", k=201), bundle.no_bias_1I)
