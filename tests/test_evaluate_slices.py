"""Slices of a test split by SQL conditions. Shapes: U = users, I = rows of the item table."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from planted_data import write_dataset

from recsys import evaluate
from recsys.columns import ITEMS_FILE, TEST, VOCABULARIES_FILE
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate import Judged, judged_users
from recsys.metrics.ranking import rank_metrics

# Users 2..6, of whom the last has no test event; histories of 2, 3, 2 and 4 events.
TIMELINES = [[2, 3, 4], [5, 2, 3, 6], [2, 7, 3], [2, 3, 4, 5, 7], [2, 3]]
VOCABULARIES = {
    ("user", "age"): ["25", "9", "31"], ("user", "zip"): ["0213", "1000", "0900"], ("user", "height"): ["1.5", "2", "1.75"],
    ("user", "languages"): ["en", "nl"], ("item", "genre"): ["drama", "comedy"],
}  # fmt: skip
TITLES = [None, None, "Alien", "Brazil", None, "Casablanca", "Dune", "Alphaville"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("slices") / "dataset"
    write_dataset(
        folder, TIMELINES, num_items=8,
        features={
            "age": ("user", [0, 1, 2, 3, 4, 1, 2]),  # unknown of user 5
            "zip": ("user", [0, 1, 2, 3, 4, 4, 2]), "height": ("user", [0, 1, 2, 3, 4, 4, 2]),
            "languages": ("user", [[1], [1], [2, 3], [3], [2], [1], [2]]),
            "genre": ("item", [0, 1, 2, 3, 2, 1, 3, 2]),
        },
    )  # fmt: skip
    rows = [(*key, value, code) for key, values in VOCABULARIES.items() for code, value in enumerate(values, 2)]
    pl.DataFrame(rows, ["owner", "feature", "value", "code"], orient="row").write_parquet(folder / VOCABULARIES_FILE)
    items = pl.read_ipc((folder / ITEMS_FILE).read_bytes()).with_columns(pl.Series("title", TITLES))
    items.write_ipc(folder / ITEMS_FILE, compat_level=pl.CompatLevel.oldest())
    return Dataset(folder)


@pytest.fixture(scope="module")
def judged(data: Dataset) -> Judged:
    found = judged_users(data, TEST, filter_seen=False)
    assert (found.user_U.tolist(), found.history.lengths.tolist()) == ([2, 3, 4, 5], [2, 3, 2, 4])
    return found


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("history_length >= 3", [3, 5]),
        ("age < 25", [3]),  # a number, and 9 is less than 25; the user whose age is not known is in neither
        ("age >= 25", [2, 4]),
        ("age IS NULL", [5]),
        ("zip = '0213'", [2]),  # text, since its digits are no number
        ("height > 1.6", [3, 4, 5]),
        ("user_id IN ('u2', 'u5')", [2, 5]),
        ("array_contains(languages, 'nl')", [2, 3]),
        ("age > 20 AND history_length = 2", [2, 4]),
        ("history_length > 100", []),
    ],
)
def test_conditions_on_users(rule: str, wanted: list[int], data: Dataset, judged: Judged) -> None:
    mask_U = evaluate.config_slices(data, judged, user={"mine": rule}, item={}).user["mine"]
    assert judged.user_U[mask_U].tolist() == wanted


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("genre = 'drama'", [2, 4, 7]),
        ("genre IS NULL", [5]),  # not the reserved rows
        ("train_count = 0", [6, 7]),
        ("item_id = 'i3'", [3]),
        ("title LIKE 'Al%'", [2, 7]),
        ("train_count > 1 AND genre <> 'comedy'", [2]),
    ],
)
def test_conditions_on_items(rule: str, wanted: list[int], data: Dataset, judged: Judged) -> None:
    mask_I = evaluate.config_slices(data, judged, user={}, item={"mine": rule}).item["mine"]
    assert np.flatnonzero(mask_I).tolist() == wanted


@pytest.mark.parametrize(
    ("owner", "rules", "words"),
    [
        ("user", {"young": "years < 25"}, ["user_slices.young = 'years < 25'", "'years'", "history_length, user_id, age, zip"]),
        ("item", {"young": "age < 25"}, ["item_slices.young", "'age'", "train_count, item_id, title, genre"]),
        ("user", {"young": "age + 1"}, ["user_slices.young", "Int64, not true or false", "history_length >= 10"]),
        ("item", {"new": "title > 3"}, ["item_slices.new", "does not fit the columns (title: String)"]),
        ("user", {"all": "1 = 1"}, ["user_slices.all", "one value for all users"]),
        ("user", {"odd": "AVG(history_length) > 1"}, ["user_slices.odd", "one value for all users"]),
        ("user", {"young": "age <"}, ["user_slices.young = 'age <'", "no SQL condition"]),
        ("user", {"cold": "age < 25"}, ["user_slices.cold", "another slice", "head, torso, tail, cold, warm"]),
        ("item", {"tail": "train_count = 0"}, ["item_slices.tail", "another slice"]),
        ("user", {"a/b": "age < 25"}, ["user_slices", "'a/b' is no name"]),
    ],
)  # fmt: skip
def test_rules_that_do_not_work(owner: str, rules: dict[str, str], words: list[str], data: Dataset, judged: Judged) -> None:
    with pytest.raises(InputError) as raised:
        evaluate.config_slices(data, judged, **{"user": {}, "item": {}, owner: rules})
    for word in words:
        assert word in str(raised.value)


def test_users_and_items_cannot_share_a_name(data: Dataset, judged: Judged) -> None:
    with pytest.raises(InputError, match=r"item_slices\.mine has the name of another slice"):
        evaluate.config_slices(data, judged, user={"mine": "age < 25"}, item={"mine": "train_count = 0"})


def test_a_slice_keeps_its_targets_or_its_users(data: Dataset, judged: Judged) -> None:
    # Targets 4, 6, 3 and 7; every list begins with them but that of the second user.
    item_UK = np.array([[4, 2], [2, 3], [3, 4], [7, 6]])
    per_user = rank_metrics(item_UK, judged.relevant, [2])
    rules = {
        "user": {"young": "age < 25", "nobody": "age > 100"},
        "item": {"comedy": "genre = 'comedy'", "none": "item_id = 'x'"},
    }
    slices = evaluate.config_slices(data, judged, **rules)
    found = {
        name: (row_S.tolist(), values["HR@2"].tolist())
        for name, row_S, values in evaluate.in_slices(item_UK, judged, per_user, [2], slices)
    }
    assert found == {"comedy": ([1, 2], [0, 1]), "none": ([], []), "young": ([1], [0]), "nobody": ([], [])}


def test_an_empty_slice_is_shown_without_metrics(data: Dataset, judged: Judged, tmp_path: Path) -> None:
    item_UK = np.array([[4, 2], [2, 3], [3, 4], [7, 6]])
    surroundings = evaluate.Surroundings.of(data, np.full((4, 2), 2), "genre")
    means, per_user = evaluate.retrieval_metrics(item_UK, judged, [2], data.num_items, surroundings=surroundings)
    slices = evaluate.built_in_slices(data, judged)
    slices |= evaluate.config_slices(data, judged, user={"nobody": "age > 100"}, item={"none": "item_id = 'x'"})
    found = {
        name: (users, values)
        for name, users, values in evaluate.slice_metrics(item_UK, judged, per_user, [2], slices, surroundings)
    }
    assert found["nobody"] == found["none"] == (0, {})
    assert set(found) == {"head", "torso", "tail", "cold", "warm", "nobody", "none"}
    assert found["warm"][0] + found["cold"][0] == 4
    beyond = {"novelty@2", "serendipity@2", "ILD@2", "category_calibration@2", "popularity_lift@2"}
    assert beyond < set(found["warm"][1])
    assert not beyond & set(found["head"][1])  # what lists are like does not depend on the targets
    assert set(means) == set(found["warm"][1]) | {"coverage@2", "Gini@2"}


def test_a_category_that_items_do_not_have(data: Dataset) -> None:
    with pytest.raises(InputError, match=r"evaluation\.category is 'age', .*choose among genre"):
        evaluate.Surroundings.of(data, np.zeros((1, 2), np.int64), "age")
    assert evaluate.Surroundings.of(data, np.zeros((1, 2), np.int64), None).has_IC is None
