"""The answer to a query, without a server, against the numpy twins of the graphs in tiny_bundle."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import NUM_CANDIDATES, NUM_ITEMS, SIMILARITY_NN, item_text, probabilities, timeline_of

from recsys.artefact import write_artefact
from recsys.columns import FIRST_ID, UNKNOWN_ID
from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.recommend import recommend, recommend_many
from serving.schema import Query, parse


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


def expected_ids(user: int, history: list[int], excluded: list[int], k: int, context: int = 0) -> list[str]:
    """Exhaustive: the best candidates by similarity to the last item, then by click + like / 2."""
    items = [item for item in range(2, NUM_ITEMS + 2) if item not in excluded]
    candidates = sorted(items, key=lambda item: -SIMILARITY_NN[history[-1], item])[:NUM_CANDIDATES]

    def value(item: int) -> float:
        click, like = probabilities(user, min(len(history), 8), item, context)
        return click + like / 2

    return [item_text(item) for item in sorted(candidates, key=lambda item: -round(value(item), 5))[:k]]


@pytest.mark.parametrize("user", [2, 7, 13])  # 13 has more items than the model's longest history
@pytest.mark.parametrize("k", [1, 10, NUM_CANDIDATES])
def test_known_user(bundle: Bundle, user: int, k: int) -> None:
    answer = recommend(bundle, Query(user_id=f"user-{user - 2}", k=k))
    assert [item.item_id for item in answer.items] == expected_ids(user, timeline_of(user), timeline_of(user), k)


def test_history_in_place_of_a_user(bundle: Bundle) -> None:
    answer = recommend(bundle, Query(history=["item-3", "item-9"], exclude=["item-1"], k=15))
    assert [item.item_id for item in answer.items] == expected_ids(UNKNOWN_ID, [5, 11], [5, 11, 3], 15)


def test_an_item_says_how_it_was_scored(bundle: Bundle) -> None:
    best = recommend(bundle, Query(history=["item-3"], k=1)).items[0]
    dense = int(best.item_id.removeprefix("item-")) + 2
    click, like = probabilities(UNKNOWN_ID, 1, dense)
    assert best.title == f"Title {dense}"
    assert best.tasks == pytest.approx({"click": click, "like": like})
    assert best.score == pytest.approx(click + like / 2)
    assert best.retrieval_score == pytest.approx(SIMILARITY_NN[5, dense])


def test_seen_items_stay_when_asked_for(bundle: Bundle) -> None:
    seen = {item_text(item) for item in timeline_of(13)}

    def returned(filter_seen: bool) -> set[str]:
        query = Query(user_id="user-11", k=NUM_CANDIDATES, filter_seen=filter_seen)
        return {item.item_id for item in recommend(bundle, query).items}

    assert not returned(True) & seen
    assert returned(False) & seen


def test_unknown_items_are_named(bundle: Bundle) -> None:
    answer = recommend(bundle, Query(history=["no-1", "item-3"], exclude=["no-2", "no-1"]))
    assert answer.unknown_items == ["no-1", "no-2"]


def test_answer_names_its_model(bundle: Bundle) -> None:
    answer = recommend(bundle, Query(user_id="user-0"))
    assert (answer.model, answer.version) == ("tiny", bundle.version)
    assert (answer.arm, answer.flags, answer.fallback) == ("pinned", [], None)


def test_a_batch_answers_as_its_members_do(bundle: Bundle) -> None:
    asked = [Query(user_id="user-0"), Query(history=["item-3"], k=3), Query(user_id="user-11", k=20, filter_seen=False)]
    assert [answer.items for answer in recommend_many(bundle, asked)] == [recommend(bundle, query).items for query in asked]


def test_without_tasks_the_order_is_that_of_retrieval(make_bundle: Callable[..., Path]) -> None:
    bundle = Bundle.load(make_bundle(tasks=(), title=False))
    items = recommend(bundle, Query(history=["item-3"], k=NUM_CANDIDATES)).items
    assert [item.score for item in items] == sorted((item.retrieval_score for item in items), reverse=True)
    assert all(item.tasks == {} and item.title is None for item in items)


def test_context_reaches_the_graph_and_unknown_stands_in_for_what_is_missing(make_bundle: Callable[..., Path]) -> None:
    bundle = Bundle.load(make_bundle(context=("device", "hour")))

    def ids(context: dict[str, str] | None) -> list[str]:
        return [item.item_id for item in recommend(bundle, Query(user_id="user-3", context=context)).items]

    history = timeline_of(5)
    assert ids({"hour": "7", "device": "3"}) == expected_ids(5, history, history, 10, context=10 + 2 * FIRST_ID)
    assert ids({"hour": "7"}) == expected_ids(5, history, history, 10, context=7 + FIRST_ID + UNKNOWN_ID)
    assert ids({"hour": "99"}) == ids(None)  # a value that training never saw
    assert ids(None) == expected_ids(5, history, history, 10, context=2 * UNKNOWN_ID)
    with pytest.raises(InputError, match="context has an unknown feature 'hours': send device, hour"):
        ids({"hours": "7"})


def test_exactly_k_down_to_the_last_item_and_seen_ones_below(bundle: Bundle) -> None:
    left_out = [item_text(item) for item in range(2, NUM_ITEMS + 2 - 5)]
    left = {item_text(item) for item in range(37, 42)}
    exactly = recommend(bundle, Query(history=left_out, k=5))
    assert ({item.item_id for item in exactly.items}, exactly.flags) == (left, [])
    more = recommend(bundle, Query(history=left_out, k=6))
    assert {item.item_id for item in more.items[:5]} == left
    assert more.items[5].item_id in left_out
    assert more.flags == ["filters_relaxed"]


def test_an_unknown_user_gets_k_items(bundle: Bundle) -> None:
    answer = recommend(bundle, Query(user_id="nobody", k=7))
    assert (len(answer.items), answer.fallback, answer.flags) == (7, "popularity", ["unknown_user"])


def test_more_items_than_are_ever_ranked_are_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="k is 201: ask for 1 to 200, the candidates this bundle ranks"):
        recommend(bundle, Query(user_id="user-0", k=201))


def test_an_explanation_tells_history_and_candidates(bundle: Bundle) -> None:
    told = recommend(bundle, Query(user_id="user-5", k=2, explain=True)).explanation
    assert told is not None
    assert [entry.item_id for entry in told.history] == [item_text(item) for item in timeline_of(7)]
    assert not any(entry.live for entry in told.history)
    assert [item.item_id for item in told.candidates] == expected_ids(7, timeline_of(7), timeline_of(7), NUM_CANDIDATES)


@pytest.mark.parametrize(
    "body", [b'{"user_id": "u", "k": true}', b'{"history": "item-1"}', b'{"user_id": "u", "context": {"a": 1.5}}']
)
def test_types_are_not_coerced(body: bytes) -> None:
    with pytest.raises(InputError, match=r"^(k|history|context\.a) is "):
        parse(Query, body)


def test_a_runtime_that_answers_differently_is_refused(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    """The parity sample comes from torch: shift one of its numbers and the bundle no longer loads."""
    source = make_bundle()
    sample = dict(np.load(source / "parity.npz"))
    sample["ranking_probability"][1, 0, 1] += 2e-3
    model = {"max_history": 8, "num_candidates": NUM_CANDIDATES, "num_items": NUM_ITEMS + 2, "context": {}}
    model |= {"tasks": ["click", "like"], "value": {"click": 1.0}}
    with write_artefact(tmp_path / "shifted", "bundle", model=model) as (scratch, _):
        for path in set(source.iterdir()) - {source / "manifest.json"}:
            (scratch / path.name).write_bytes(path.read_bytes())
        np.savez(scratch / "parity.npz", **sample)
    with pytest.raises(InputError, match=r"does not give the outputs recorded in parity\.npz"):
        Bundle.load(tmp_path / "shifted")


def test_a_changed_file_is_refused(make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle()
    with (folder / "items.arrow").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"items\.arrow is missing or differs from its manifest"):
        Bundle.load(folder)
