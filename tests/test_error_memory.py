"""The memory of errors by itself: hand-worked numbers, bounds, and a model that is planted wrong."""

import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from recsys.config import RunConfig
from recsys.error_memory import EDGE, ErrorMemory, ErrorMemorySpec, attended, compensated, taste_keys

WIDTH = 8


def spec(**settings: object) -> ErrorMemorySpec:
    return ErrorMemorySpec.model_validate({"tasks": ("click",), "bits": 2, "tables": 4, "slots": 4, "prior": 0, **settings})


def key(*numbers: float) -> np.ndarray:
    found = np.zeros((1, WIDTH), np.float32)
    found[0, : len(numbers)] = numbers
    return found / np.linalg.norm(found)


def test_the_weighed_error_is_worked_out_by_hand() -> None:
    """Softmax of 2 and 1 is .7311 and .2689; .7311 * .4 - .2689 * .2 = .2386; and .3 + .5 * .2386 = .4193."""
    error_KT = attended(np.array([[2.0, 1.0]]), np.array([[[0.4], [-0.2]]]), np.ones((1, 2), bool), temperature=1.0, prior=0.0)
    assert error_KT == pytest.approx(np.array([[0.2386]]), abs=1e-4)
    assert compensated(np.array([[0.3]]), error_KT, 0.5) == pytest.approx(np.array([[0.4193]]), abs=1e-4)


def test_few_errors_are_half_believed_where_they_are_as_many_as_the_prior() -> None:
    """Two equal similarities are two effective errors: 2 / (2 + 2) of the mean .3."""
    error_KT = attended(np.array([[1.0, 1.0]]), np.array([[[0.4], [0.2]]]), np.ones((1, 2), bool), temperature=0.1, prior=2.0)
    assert error_KT == pytest.approx(np.array([[0.15]]))


def test_what_was_not_found_has_no_part() -> None:
    found_KS = np.array([[True, False], [False, False]])
    error_KT = attended(np.ones((2, 2)), np.array([[[0.5], [9.0]], [[9.0], [9.0]]]), found_KS, temperature=1.0, prior=0.0)
    assert error_KT.tolist() == [[0.5], [0.0]]


def test_nothing_known_changes_nothing() -> None:
    memory, probability_KT = ErrorMemory(spec(), WIDTH, 1), np.array([[0.3], [0.0], [1.0]], np.float32)
    assert memory.compensated(probability_KT, np.repeat(key(1.0), 3, axis=0)).tolist() == probability_KT.tolist()


def test_what_is_far_away_says_nothing() -> None:
    """With 16 signs the opposite of a key is in another bucket of every table."""
    memory = ErrorMemory(spec(bits=16), WIDTH, 1)
    memory.write(key(1.0, 2.0), np.array([[0.5]]), owner=1)
    assert memory.errors(key(-1.0, -2.0)).tolist() == [[0.0]]
    assert memory.errors(key(1.0, 2.0)) == pytest.approx(np.array([[0.5]]))


def test_an_entry_that_all_tables_find_counts_once() -> None:
    memory = ErrorMemory(spec(prior=1), WIDTH, 1)
    memory.write(key(1.0), np.array([[0.4]]), owner=1)
    assert memory.errors(key(1.0)) == pytest.approx(np.array([[0.2]]))  # 1 / (1 + 1), not 4 / (4 + 1)


def test_a_bucket_keeps_its_newest_errors() -> None:
    memory = ErrorMemory(spec(slots=2), WIDTH, 1)
    memory.write(np.repeat(key(1.0), 3, axis=0), np.array([[0.9], [0.2], [0.4]]), owner=1)
    assert memory.errors(key(1.0)) == pytest.approx(np.array([[0.3]]))


def test_the_oldest_error_gives_way_to_the_newest() -> None:
    memory = ErrorMemory(spec(entries=2, bits=16), WIDTH, 1)
    first, second, third = key(1.0), key(-1.0), key(0.0, 1.0)
    for each in (first, second, third):
        memory.write(each, np.array([[0.5]]), owner=1)
    assert len(memory) == 2
    assert memory.errors(first).tolist() == [[0.0]]
    assert memory.errors(second) == pytest.approx(np.array([[0.5]]))


def test_memory_does_not_grow() -> None:
    memory, rng = ErrorMemory(spec(entries=50), WIDTH, 1), np.random.default_rng(0)
    before = memory.nbytes
    for _ in range(20):
        memory.write(rng.normal(size=(30, WIDTH)).astype(np.float32), rng.normal(size=(30, 1)), owner=1)
    assert (memory.nbytes, len(memory), memory.written) == (before, 50, 600)


def test_a_forgotten_owner_leaves_no_trace() -> None:
    """The memory then says what it would say had the owner never been there, as long as no bucket was full."""
    memory, without = (ErrorMemory(spec(slots=64), WIDTH, 1) for _ in range(2))
    rng = np.random.default_rng(0)
    key_ND, error_NT = rng.normal(size=(30, WIDTH)).astype(np.float32), rng.normal(0, 0.3, (30, 1)).astype(np.float32)
    for n in range(30):
        memory.write(key_ND[n : n + 1], error_NT[n : n + 1], owner=n % 2)
        if n % 2:
            without.write(key_ND[n : n + 1], error_NT[n : n + 1], owner=1)
    assert not np.allclose(memory.errors(key_ND), without.errors(key_ND))
    assert memory.forget(0) == 15
    assert memory.errors(key_ND) == pytest.approx(without.errors(key_ND), abs=1e-6)
    assert not memory._key_ED[memory._owner_E < 0].any()


def test_a_correction_stops_short_of_certainty() -> None:
    sure_KT = np.array([[0.5], [0.5], [0.0], [1.0], [np.nan]], np.float32)
    error_KT = np.array([[1.0], [-1.0], [-1.0], [1.0], [0.1]], np.float32)
    found_KT = compensated(sure_KT, error_KT, 1.0)
    assert found_KT[:4, 0] == pytest.approx([1 - EDGE, EDGE, 0.0, 1.0])
    assert np.isnan(found_KT[4, 0])


def test_a_key_is_a_taste_and_an_item() -> None:
    """Cosine of two keys = .7 * cosine of the tastes + .3 * that of the items."""
    east, north = np.eye(2, dtype=np.float32)
    same_item = taste_keys(np.stack([east, east]), east[None], 0.3) @ taste_keys(north[None], east[None], 0.3).T
    same_taste = taste_keys(np.stack([east, east]), east[None], 0.3) @ taste_keys(east[None], north[None], 0.3).T
    assert (same_item.item(), same_taste.item()) == pytest.approx((0.3, 0.7))
    assert taste_keys(np.empty((0, 2), np.float32), east[None], 0.3).tolist() == [pytest.approx([0, 0, 0.3**0.5, 0])]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_model_that_is_wrong_of_some_items_is_corrected_there(seed: int) -> None:
    """Truth: items of one half turned from .2 to .5 after the training; the model says .2 of all. Test, then write."""
    rng = np.random.default_rng(seed)
    group_I = np.arange(100) % 2
    item_ID = rng.normal(0, 0.3, (100, 8)) + np.where(group_I[:, None] == 1, 1.0, -1.0)
    item_ID = (item_ID / np.linalg.norm(item_ID, axis=1, keepdims=True)).astype(np.float32)
    memory = ErrorMemory(ErrorMemorySpec(tasks=("click",), seed=seed, item_share=1.0, strength=1.0, prior=5), 16, 1)
    said, corrected, truth = [], [], []
    for _ in range(300):
        item_K = rng.integers(100, size=10)
        key_KD, truth_K = taste_keys(item_ID[:0], item_ID[item_K], 1.0), np.where(group_I[item_K] == 1, 0.5, 0.2)
        probability_KT = np.full((10, 1), 0.2, np.float32)
        corrected.append(memory.compensated(probability_KT, key_KD)[:, 0])
        said.append(probability_KT[:, 0])
        truth.append(truth_K)
        memory.write(key_KD, (rng.random(10) < truth_K)[:, None] - probability_KT, owner=1)
    error, error_without = (np.mean((np.concatenate(each) - np.concatenate(truth)) ** 2) for each in (corrected, said))
    assert error < error_without / 2
    groups = np.concatenate(truth)[-1000:] > 0.3
    late = np.concatenate(corrected)[-1000:]
    assert late[groups].mean() > late[~groups].mean() + 0.1


@pytest.mark.parametrize(
    ("settings", "named"), [({"tasks": []}, "tasks"), ({"window_s": 0}, "window_s"), ({"bits": 17}, "bits")]
)
def test_settings_out_of_range_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        spec(**settings)


def test_the_page_has_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[1] / "docs/error-memory.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", page, re.M))
    fields = ErrorMemorySpec.model_fields
    assert list(shown) == list(fields)
    assert shown == {key: "required" if field.is_required() else str(field.default) for key, field in fields.items()}


@pytest.mark.parametrize("task", ["no_such_task", "rating"])
def test_a_config_names_tasks_that_can_be_corrected(task: str) -> None:
    labels = {"like": "rating >= 4", "rating": {"kind": "quantile", "value": "rating"}}
    data = {"events": {"path": "log.csv", "user": "u", "item": "i", "time": "t", "columns": {"t": "int"}, "labels": labels}}
    whole = {"name": "shown", "data": data, "ranker": {"tasks": {"like": 1, "rating": 1}}, "serving": {"value": {"like": 1}}}
    good = RunConfig.model_validate({**whole, "serving": {"value": {"like": 1}, "error_memory": {"tasks": ["like"]}}})
    assert good.serving.error_memory is not None
    with pytest.raises(ValidationError, match=f"serving.error_memory.tasks names '{task}'"):
        RunConfig.model_validate({**whole, "serving": {"value": {"like": 1}, "error_memory": {"tasks": [task]}}})
