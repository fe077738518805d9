"""How deep the ranker looks, and by which formula: `serving.ranked` and `serving.value`, from the manifest to the order."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import LOG_PROB_NN, NUM_CANDIDATES, ROWS, SIMILARITY_NN, build_bundle, item_text, probabilities

from recsys.artefact import MANIFEST
from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.recommend import recommend, recommend_many
from serving.schema import Query

HISTORY = [11, 5]


def loaded(folder: Path, *, value: object = None, ranked: int | None = None, beam: int = 0) -> Bundle:
    build_bundle(folder, beam=beam, serving={"ranked": ranked})
    if value is not None:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["model"]["value"] = value
        (folder / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.load(folder)


def query(k: int) -> Query:
    return Query(history=[item_text(item) for item in HISTORY], k=k)


def best(table_NN: np.ndarray, left_out: list[int], count: int) -> list[int]:
    return sorted(set(range(2, ROWS)) - set(left_out), key=lambda item: -table_NN[HISTORY[-1], item])[:count]


def by_value(items: list[int]) -> list[int]:
    value = {item: (p := probabilities(1, 2, item))[0] + p[1] / 2 for item in items}
    return sorted(items, key=lambda item: -round(value[item], 5))


@pytest.mark.parametrize("depth", [1, 7, NUM_CANDIDATES, 500])
def test_only_the_first_candidates_are_ranked_and_the_others_follow(tmp_path: Path, depth: int) -> None:
    found = recommend(loaded(tmp_path / "b", ranked=depth), query(NUM_CANDIDATES)).items
    candidates = best(SIMILARITY_NN, HISTORY, NUM_CANDIDATES)
    wanted = by_value(candidates[:depth]) + candidates[depth:]
    assert [item.item_id for item in found] == [item_text(item) for item in wanted]
    assert all(item.tasks for item in found[:depth])
    for item in found[depth:]:
        assert item.tasks == {}
        assert item.score == item.retrieval_score  # in the source's unit, since there is no value


@pytest.mark.parametrize("depth", [4, 9])
def test_with_a_generator_the_depth_counts_what_fills_up(tmp_path: Path, depth: int) -> None:
    """Six generated items of which two may not be recommended; retrieval fills up."""
    bundle = loaded(tmp_path / "b", ranked=depth, beam=6)
    generated = best(LOG_PROB_NN, HISTORY, 6)
    gone, generated = generated[:2], generated[2:]
    allow = [item_text(item) for item in range(2, ROWS) if item not in gone]
    found = recommend(bundle, query(12).model_copy(update={"allow": allow}))
    filling = best(SIMILARITY_NN, [*HISTORY, *gone, *generated], 8)
    more = max(0, depth - len(generated))
    wanted = by_value(generated[:depth]) + generated[depth:] + by_value(filling[:more]) + filling[more:]
    assert [item.item_id for item in found.items] == [item_text(item) for item in wanted]
    assert [item.source for item in found.items] == ["generation"] * 4 + ["retrieval"] * 8
    assert sum(bool(item.tasks) for item in found.items) == depth
    assert found.fallback == "retrieval"


def test_a_batch_answers_as_its_members_do(tmp_path: Path) -> None:
    bundle = loaded(tmp_path / "b", ranked=5, beam=6)
    asked = [query(3), Query(history=[], k=2), Query(user_id="user-4", k=15), query(20)]
    assert [each.items for each in recommend_many(bundle, asked)] == [recommend(bundle, each).items for each in asked]


def test_the_formula_of_the_bundle_orders(tmp_path: Path) -> None:
    found = recommend(loaded(tmp_path / "b", value="like ** 2 - click * 0.1"), query(NUM_CANDIDATES)).items
    value = {}
    for item in best(SIMILARITY_NN, HISTORY, NUM_CANDIDATES):
        click, like = probabilities(1, 2, item)
        value[item_text(item)] = like**2 - click * 0.1
    assert [item.item_id for item in found] == sorted(value, key=lambda item: -round(value[item], 5))
    assert [item.score for item in found] == pytest.approx([value[item.item_id] for item in found], abs=1e-6)


@pytest.mark.parametrize(
    ("value", "part"),
    [({"buy": 1.0}, "unknown task 'buy'"), ("click * buy", "unknown task 'buy'"), ("open(click)", r"'open\(click\)'")],
)
def test_a_bundle_whose_value_cannot_be_used_is_refused(tmp_path: Path, value: object, part: str) -> None:
    with pytest.raises(InputError, match=f"`model` entry of manifest.json is unusable .*{part}"):
        loaded(tmp_path / "b", value=value)
