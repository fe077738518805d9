"""A bundle with a generation graph: what is found by whom, in which order, and that k items always come.

B = queries, K = items of the answer.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import LOG_PROB_NN, NUM_CANDIDATES, NUM_ITEMS, ROWS, SIMILARITY_NN, TASKS, item_text, probabilities

from recsys.artefact import write_artefact
from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.client import ask
from serving.recommend import recommend, recommend_many
from serving.run import running_service
from serving.schema import Query

BEAM = 6
HISTORY = [5, 11]  # dense items; the graphs look at the last one


def best(table_NN: np.ndarray, excluded: list[int], count: int) -> list[int]:
    items = [item for item in range(2, ROWS) if item not in excluded]
    return sorted(items, key=lambda item: -table_NN[HISTORY[-1], item])[:count]


def expected(excluded: list[int], k: int, tasks: bool) -> tuple[list[str], int]:
    """The ids of the answer, and how many of them are generated: best value first within each source."""
    generated = best(LOG_PROB_NN, excluded, BEAM)
    filling = best(SIMILARITY_NN, [*excluded, *generated], max(0, k - len(generated)))

    def value(item: int) -> float:
        click, like = probabilities(1, len(HISTORY), item)
        return -round(click + like / 2, 5)

    if tasks:
        generated, filling = sorted(generated, key=value), sorted(filling, key=value)
    generated = generated[:k]
    return [item_text(item) for item in [*generated, *filling]], len(generated)


def query(excluded: list[int], k: int) -> Query:
    return Query(history=[item_text(item) for item in HISTORY], exclude=[item_text(item) for item in excluded], k=k)


@pytest.fixture(scope="module", params=[TASKS, ()], ids=["with tasks", "without tasks"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from tiny_bundle import build_bundle

    return Bundle.load(build_bundle(tmp_path_factory.mktemp("generated") / "bundle", tasks=request.param, beam=BEAM))


@pytest.mark.parametrize("k", [1, BEAM, BEAM + 1, NUM_CANDIDATES])
@pytest.mark.parametrize("left", [NUM_ITEMS, NUM_CANDIDATES + 1, NUM_CANDIDATES])
def test_generated_items_come_first_and_retrieval_fills_up(bundle: Bundle, k: int, left: int) -> None:
    excluded = [item for item in range(2, ROWS) if item not in HISTORY][: NUM_ITEMS - max(left, 2)]
    if k > NUM_ITEMS - len({*excluded, *HISTORY}):
        excluded = excluded[:-2]
    answer = recommend(bundle, query(excluded, k))
    ids, generated = expected([*HISTORY, *excluded], k, bool(bundle.facts.tasks))
    assert [item.item_id for item in answer.items] == ids
    assert len(set(ids)) == k
    assert [item.source for item in answer.items] == ["generation"] * generated + ["retrieval"] * (k - generated)
    assert answer.fallback == ("retrieval" if k > generated else None)


def test_a_trie_that_empties_is_filled_up_to_the_last_item(bundle: Bundle) -> None:
    """Three items are left in all, fewer than the beam is wide."""
    excluded = [item for item in range(2, ROWS) if item not in (3, 20, 33)]
    answer = recommend(bundle, query([item for item in excluded if item not in HISTORY], 3))
    assert {item.item_id for item in answer.items} == {item_text(item) for item in (3, 20, 33)}
    assert answer.fallback is None


def test_scores_are_those_of_the_source(bundle: Bundle) -> None:
    for item in recommend(bundle, query([], BEAM + 4)).items:
        table_NN = LOG_PROB_NN if item.source == "generation" else SIMILARITY_NN
        dense = int(item.item_id.removeprefix("item-")) + 2
        assert item.retrieval_score == pytest.approx(table_NN[HISTORY[-1], dense])


def test_a_batch_answers_as_its_members_do(bundle: Bundle) -> None:
    asked = [query([], 2), query([3, 4], NUM_CANDIDATES), Query(user_id="user-0", k=BEAM + 1), Query(user_id="user-11", k=3)]
    together = [answer.items for answer in recommend_many(bundle, asked)]
    assert together == [recommend(bundle, each).items for each in asked]


def test_without_a_generator_every_item_is_of_retrieval(bundle_folder: Path) -> None:
    answer = recommend(Bundle.load(bundle_folder), query([], NUM_CANDIDATES))
    assert {item.source for item in answer.items} == {"retrieval"}
    assert answer.fallback is None


def test_served_over_http(make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle(beam=BEAM)
    with running_service(folder) as url:
        for k in (3, BEAM + 5):
            asked = query([7, 8], k)
            answer = ask(url, **asked.model_dump(exclude_defaults=True) | {"k": k})
            assert answer["items"] == recommend(Bundle.load(folder), asked).model_dump()["items"]
            assert len({item["item_id"] for item in answer["items"]}) == k
            assert answer["fallback"] == (None if k <= BEAM else "retrieval")


def test_a_runtime_that_generates_other_items_is_refused(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bundle(tasks=(), beam=BEAM)
    model = {"max_history": 8, "num_candidates": NUM_CANDIDATES, "num_items": ROWS, "context": {}, "tasks": [], "value": {}}
    for name, change in (("score", 2e-3), ("item", 1)):
        sample = dict(np.load(source / "parity.npz"))
        sample[f"generation_{name}"][0, 1] += change
        with write_artefact(tmp_path / name, "bundle", model=model | {"candidates": "generation"}) as (scratch, _):
            for path in set(source.iterdir()) - {source / "manifest.json"}:
                (scratch / path.name).write_bytes(path.read_bytes())
            np.savez(scratch / "parity.npz", **sample)
        with pytest.raises(InputError, match=r"does not give the outputs recorded in parity\.npz"):
            Bundle.load(tmp_path / name)
