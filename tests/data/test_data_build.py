"""A small shop log whose dataset is worked out by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data import Data
from recsys.data.build import build
from recsys.dataset import Dataset

T0 = 1_700_000_000

# User b sees a page of three at time 20 and clicks two of it; its first row in the file is its latest event.
LOG = f"""who,what,ts,click,device
b,lamp,{T0 + 90},1,phone
a,sofa,{T0 + 10},1,phone
b,sofa,{T0 + 20},1,desk
b,desk,{T0 + 20},0,desk
b,rug,{T0 + 20},1,desk
a,lamp,{T0 + 40},0,
a,rug,{T0 + 50},1,phone
c,rug,{T0 + 60},0,phone
a,lamp,{T0 + 70},1,phone
"""
EVENTS = {
    "path": "log.csv", "user": "who", "item": "what", "time": "ts", "columns": {"ts": "int", "click": "int"},
    "history": "click = 1", "labels": {"click": "click", "buy": "CASE WHEN what = 'rug' THEN click END"},
    "context": {"device": "device"},
}  # fmt: skip
ITEMS = "what,kind,colours,name\nrug,soft,red|blue,A rug\nsofa,soft,,A sofa\nghost,hard,red,Never seen\nlamp, ,red| ,\n"
ITEM_TABLE = {
    "path": "items.csv",
    "id": "what",
    "title": "name",
    "features": {"kind": "kind", "colours": "STRING_TO_ARRAY(colours, '|')"},
}
LEAVE_ONE_OUT = {"kind": "leave_one_out"}


@pytest.fixture
def shop(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> Dataset:
    write("log.csv", LOG)
    write("items.csv", ITEMS)
    return prepare(EVENTS, items=ITEM_TABLE, split=LEAVE_ONE_OUT)


def test_ids_are_the_sorted_external_ids_after_padding_and_unknown(shop: Dataset) -> None:
    assert shop.user_ids == [None, None, "a", "b", "c"]
    assert shop.item_ids == [None, None, "desk", "lamp", "rug", "sofa"]


def test_timelines_hold_clicks_in_order_of_time_and_then_of_the_file(shop: Dataset) -> None:
    assert shop.start_U.tolist() == [0, 0, 0, 3, 6]
    assert shop.length_U.tolist() == [0, 0, 3, 3, 0]
    assert [shop.item_ids[i] for i in shop.item_E] == ["sofa", "rug", "lamp", "sofa", "rug", "lamp"]
    assert ((shop.time_ms_E - T0 * 1000) // 1000).tolist() == [10, 50, 70, 20, 20, 90]
    assert (shop.train_length_U.tolist(), shop.valid_length_U.tolist()) == ([0, 0, 1, 1, 0], [0, 0, 1, 1, 0])
    assert shop.train_count_I.tolist() == [0, 0, 0, 0, 0, 2]


def test_examples_see_what_came_before_them(shop: Dataset, examples_of: Callable[[Dataset], pl.DataFrame]) -> None:
    rows = examples_of(shop).select("user", "item", "history", "split").rows()
    assert rows == [
        ("a", "sofa", [], 0),
        ("a", "lamp", ["sofa"], 1),  # shown between the first and the second click: leads up to the validation event
        ("a", "rug", ["sofa"], 1),
        ("a", "lamp", ["sofa", "rug"], 2),
        ("b", "sofa", [], 0),
        ("b", "desk", ["sofa"], 1),  # same moment, later in the file
        ("b", "rug", ["sofa"], 1),
        ("b", "lamp", ["sofa", "rug"], 2),
        ("c", "rug", [], 0),  # a user without clicks only trains
    ]


def test_simultaneous_events_do_not_see_each_other(
    write: Callable[..., Path], prepare: Callable[..., Dataset], examples_of: Callable[[Dataset], pl.DataFrame]
) -> None:
    write("log.csv", LOG)
    data = prepare({**EVENTS, "ties": "simultaneous"}, split=LEAVE_ONE_OUT)
    rows = examples_of(data).filter(user="b").select("item", "history", "split").rows()
    assert rows == [("sofa", [], 0), ("desk", [], 0), ("rug", [], 1), ("lamp", ["sofa", "rug"], 2)]


def test_a_label_that_does_not_exist_is_not_a_zero(shop: Dataset) -> None:
    np.testing.assert_array_equal(shop.examples["label_click"], [1, 0, 1, 1, 1, 0, 1, 1, 0])
    nan = np.nan
    np.testing.assert_array_equal(shop.examples["label_buy"], [nan, nan, 1, nan, nan, nan, 1, nan, 0])
    assert shop.manifest["report"]["tasks"]["buy"] == {"labelled": 3, "mean": pytest.approx(2 / 3)}


def test_features_are_codes_of_the_sorted_values_and_missing_ones_are_unknown(shop: Dataset) -> None:
    # Items in order: padding, unknown, desk (no row in the table), lamp (blank kind), rug, sofa (no colours).
    assert shop.vocabulary("item", "kind") == ["soft"]
    assert shop.codes("kind", "item").item_E.tolist() == [1, 1, 1, 1, 2, 2]
    assert shop.vocabulary("item", "colours") == ["blue", "red"]
    colours = shop.codes("colours", "item")
    assert [colours.slice(i, i + 1).item_E.tolist() for i in range(6)] == [[1], [1], [1], [3], [3, 2], [1]]
    assert shop.vocabulary("context", "device") == ["desk", "phone"]
    assert shop.examples["context_device"].tolist() == [3, 1, 3, 3, 2, 2, 2, 3, 3]
    sizes = {f["name"]: (f["owner"], f["size"], f["multi_valued"]) for f in shop.features}
    assert sizes == {"kind": ("item", 3, False), "colours": ("item", 4, True), "device": ("context", 4, False)}


def test_the_report_counts_what_was_read_and_what_is_missing(shop: Dataset) -> None:
    report = shop.manifest["report"]
    assert (report["rows_read"], report["rows_kept"], report["timeline_events"]) == (9, 9, 6)
    assert report["timeline_by_split"] == {"train": 2, "valid": 2, "test": 2}
    assert report["item_table"]["ids_of_events_without_row"] == 1
    assert report["share_with_tied_time"] == pytest.approx(2 / 6, abs=1e-4)


def test_columns_are_views_of_the_mapped_files(shop: Dataset) -> None:
    arrays = [
        shop.item_E,
        shop.time_ms_E,
        shop.train_length_U,
        shop.valid_length_U,
        shop.start_U,
        shop.length_U,
        shop.train_count_I,
    ]
    arrays += [*shop.examples.values(), shop.codes("kind", "item").item_E, shop.codes("colours", "item").item_E]
    for array in arrays:
        assert not array.flags.owndata
        assert not array.flags.writeable
    types = {name: array.dtype.name for name, array in shop.examples.items()}
    assert types == {
        "user": "int32", "item": "int32", "position": "int32", "time_ms": "int64", "split": "int8", "slot": "int32",
        "propensity": "float32", "label_click": "float32", "label_buy": "float32", "weight": "float32",
        "context_device": "int32",
    }  # fmt: skip
    assert (shop.item_E.dtype, shop.start_U.dtype, shop.train_count_I.dtype) == (np.int32, np.int64, np.int64)


def test_of_repeated_ids_the_first_known_value_counts(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.csv", LOG)
    write("items.csv", "what,kind,colours,name\nrug,,red,\nrug,soft,blue,A rug\nrug,hard,,Another\n")
    data = prepare(EVENTS, items=ITEM_TABLE, split=LEAVE_ONE_OUT)
    rug = data.item_ids.index("rug")
    assert data.vocabulary("item", "kind") == ["soft"]
    assert data.codes("kind", "item").item_E[rug] == 2
    assert data.vocabulary("item", "colours") == ["red"]
    assert data.manifest["report"]["item_table"]["rows_of_repeated_ids"] == 2


def test_unreadable_rows_of_a_table_go_to_quarantine(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.csv", LOG)
    write("items.csv", "what,kind,colours,name\nrug,soft,red,A rug\n,hard,red,No id\nsofa,soft,red,A sofa,more\n")
    data = prepare(EVENTS, items=ITEM_TABLE, split=LEAVE_ONE_OUT, filters={"max_bad_share": 0.7})
    bad = pl.read_parquet(data.folder / "quarantine" / "items.parquet")
    assert bad.select("source_row", "reason").rows() == [(1, "id is empty"), (2, "row has more than 4 fields")]
    assert data.codes("kind", "item").item_E[data.item_ids.index("sofa")] == 1


def test_without_tasks_and_time_there_are_timelines_in_file_order(
    write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    write("log.csv", "u,i\nx,3\nx,1\nx,2\n")
    data = prepare({"path": "log.csv", "user": "u", "item": "i"}, split=LEAVE_ONE_OUT)
    assert [data.item_ids[i] for i in data.item_E] == ["3", "1", "2"]
    assert len(data.examples["user"]) == 0
    assert not data.manifest["has_time"]


def test_lists_become_one_row_per_element(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.parquet", pl.DataFrame({"u": [1, 2, 3], "seq": [[7, 8, 9], [], [9]]}))
    data = prepare({"path": "log.parquet", "user": "u", "item": "seq", "explode": "seq"}, split=LEAVE_ONE_OUT)
    assert data.user_ids == [None, None, "1", "3"]
    assert [data.item_ids[i] for i in data.item_E] == ["7", "8", "9", "9"]


def test_a_missing_list_or_element_is_set_aside_where_it_stands(
    write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    """Users are split among shards and their order is that of the lists all the same; `source_row` counts elements."""
    lists = [[7, 8, 9], None, [9, 1, None, 3], [], [5]]
    write("log.parquet", pl.DataFrame({"u": [1, 2, 3, 4, 5], "seq": lists}))
    events = {"path": "log.parquet", "user": "u", "item": "seq", "explode": "seq"}
    data = prepare(events, split=LEAVE_ONE_OUT, filters={"max_bad_share": 0.3}, shards=3)
    timelines = {data.user_ids[u]: data.timelines.slice(u, u + 1).item_E for u in range(2, data.num_users)}
    found = {user: [data.item_ids[i] for i in items] for user, items in timelines.items()}
    assert found == {"1": ["7", "8", "9"], "3": ["9", "1", "3"], "5": ["5"]}
    aside = pl.read_parquet(data.folder / "quarantine" / "events.parquet")
    assert sorted(aside.select("rule", "source_row", "user_id").rows()) == [
        ("item_id_empty", 3, "2"),
        ("item_id_empty", 6, "3"),
    ]


def test_words_of_a_title_are_a_feature(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    """The expression of docs/own-data.md."""
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
    write("log.csv", LOG)
    write("items.csv", "what,name\nlamp,Große LAMPE (2-er Set)\nsofa,-\n")
    words = "STRING_TO_ARRAY(REGEXP_REPLACE(LOWER(name), '[^\\p{L}\\p{N}]+', ' ', 'g'), ' ')"
    assert f"title_words: {words}" in page
    data = prepare(EVENTS, items={"path": "items.csv", "id": "what", "features": {"words": words}}, split=LEAVE_ONE_OUT)
    known, codes = data.vocabulary("item", "words"), data.codes("words", "item")
    found = {
        data.item_ids[i]: [known[code - 2] for code in codes.slice(i, i + 1).item_E if code > 1]
        for i in range(2, data.num_items)
    }
    assert found["lamp"] == ["große", "lampe", "2", "er", "set"]
    assert found["sofa"] == []


def test_manifest_names_its_inputs_and_the_same_input_gives_the_same_bytes(
    shop: Dataset, raw: Path, tmp_path: Path, write: Callable[..., Path]
) -> None:
    again = build(Data.model_validate(shop.manifest["config"]), raw, tmp_path / "again")
    assert set(again["inputs"]) == {"log.csv", "items.csv"}
    assert again["files"] == shop.manifest["files"]
    assert again["data_fingerprint"] == shop.manifest["data_fingerprint"]
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["report"] == shop.manifest["report"]
    write("log.csv", LOG.replace("c,rug", "c,sofa"))
    assert build(Data.model_validate(shop.manifest["config"]), raw, tmp_path / "again")["fingerprint"] != again["fingerprint"]


def test_a_table_may_hold_nothing_but_ids_or_titles(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.csv", LOG)
    write("items.csv", ITEMS)
    for table in ({"path": "items.csv", "id": "what"}, {"path": "items.csv", "id": "what", "title": "name"}):
        assert (
            prepare(EVENTS, items=table, split=LEAVE_ONE_OUT).manifest["report"]["item_table"]["ids_of_events_without_row"] == 1
        )
