"""The file of what is sold: what it may say, what is refused, and that a change takes effect while a broken file does not."""

import datetime as dt
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_bundle import ROWS

from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.file import ALWAYS_MS, NEVER_MS, read_catalogue

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


def csv(folder: Path, text: str) -> Path:
    (folder / "sold.csv").write_text(text)
    return folder / "sold.csv"


def sold(catalogue: Catalogue, bundle: Bundle, now_ms: int = 0, region: str | None = None) -> set[int]:
    row_1I = catalogue.shelf(bundle).row(now_ms, None, region)
    return set(np.flatnonzero(row_1I[0] == 0).tolist()) - {0, 1}


ALL = set(range(2, ROWS))


def test_items_that_the_file_does_not_name_are_sold_everywhere(bundle: Bundle, tmp_path: Path) -> None:
    catalogue = Catalogue(csv(tmp_path, "item_id,in_stock,regions\nitem-0,no,\nitem-1,,aa|bb\nitem-2,1,bb\nunheard-of,0,aa\n"))
    assert sold(catalogue, bundle) == ALL - {2}
    assert sold(catalogue, bundle, region="aa") == ALL - {2, 4}
    assert sold(catalogue, bundle, region="elsewhere") == ALL - {2, 3, 4}


def test_time_is_counted_from_the_moment_on_and_up_to_it(bundle: Bundle, tmp_path: Path) -> None:
    rows = f"item-0,1970-01-02,\nitem-1,,1970-01-02T01:00:00+01:00\nitem-2,{DAY_MS},{2 * DAY_MS}\n"
    catalogue = Catalogue(csv(tmp_path, "item_id,available_from,expires\n" + rows))
    assert sold(catalogue, bundle, DAY_MS - 1) == ALL - {2, 4}
    assert sold(catalogue, bundle, DAY_MS) == ALL - {3}
    assert sold(catalogue, bundle, 2 * DAY_MS - 1) == ALL - {3}
    assert sold(catalogue, bundle, 2 * DAY_MS) == ALL - {3, 4}
    assert sold(catalogue, bundle, DAY_MS - 1) == ALL - {2, 4}  # and back again


def test_parquet_keeps_its_types(bundle: Bundle, tmp_path: Path) -> None:
    noon = dt.datetime(1970, 1, 2, 12, tzinfo=dt.UTC)
    table = pa.table(
        {
            "item_id": pa.array(["item-0", "item-1", "item-2"]).dictionary_encode(),
            "in_stock": pa.array([None, True, False]),
            "available_from": pa.array([noon, None, None], pa.timestamp("us", "UTC")),
            "expires": pa.array([None, DAY_MS, None]),
            "regions": pa.array([["aa", "bb"], [], None], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "sold.parquet")
    catalogue = Catalogue(tmp_path / "sold.parquet")
    assert sold(catalogue, bundle, DAY_MS) == ALL - {2, 3, 4}
    assert sold(catalogue, bundle, DAY_MS * 3 // 2, "bb") == ALL - {3, 4}
    assert sold(catalogue, bundle, DAY_MS * 3 // 2, "cc") == ALL - {2, 3, 4}


def test_empty_cells_and_missing_columns_limit_nothing(tmp_path: Path) -> None:
    listing = read_catalogue(csv(tmp_path, "item_id,expires\na,\nb,  \n"))
    assert listing.until_ms_N.tolist() == [NEVER_MS] * 2
    assert listing.from_ms_N.tolist() == [ALWAYS_MS] * 2
    assert listing.stock_N.all()
    assert listing.anywhere_N.all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("item_id,stock\na,1\n", "unknown column 'stock': the columns are item_id, in_stock"),
        ("in_stock\ntrue\n", "has no column item_id"),
        ("item_id,item_id\na,b\n", "column twice"),
        ("item_id,in_stock\na,true\nb,perhaps\n", "has in_stock 'perhaps' in row 2: write true or false"),
        ("item_id,expires\na,2026-01-31\nb,tomorrow\n", "has expires 'tomorrow' in row 2: write 2026-01-31T12:00:00Z"),
        ("item_id,available_from\na,99999999999999999999\n", "has available_from '99999999999999999999' in row 1"),
        ("item_id,in_stock\na,1\na,0\n", "names item 'a' twice"),
        ("item_id,in_stock\n,1\n", "row without item_id"),
        ("item_id,in_stock\na\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=r"^catalogue \S+sold\.csv ") as refused:
        Catalogue(csv(tmp_path, text))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "column", "sentence"),
    [
        ("expires", pa.array([1.5]), "has expires as double"),
        ("regions", pa.array([7]), "has regions as int64"),
        ("in_stock", pa.array([7]), "has in_stock 7 in row 1"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused(tmp_path: Path, name: str, column: Any, sentence: str) -> None:
    pq.write_table(pa.table({"item_id": ["a"], name: column}), tmp_path / "sold.parquet")
    with pytest.raises(InputError, match=sentence):
        read_catalogue(tmp_path / "sold.parquet")


def test_a_file_that_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Catalogue(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"is neither \.csv nor \.parquet"):
        Catalogue(tmp_path / "none.xlsx")


def eventually(found: Callable[[], Any], wanted: Any) -> None:
    deadline = time.monotonic() + 10
    while found() != wanted and time.monotonic() < deadline:
        time.sleep(0.005)
    assert found() == wanted


def test_a_change_takes_effect_and_a_broken_file_does_not(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path, "item_id,in_stock\nitem-0,false\n")
    catalogue = Catalogue(path, check_s=0)
    before = sold(catalogue, bundle)
    assert before == ALL - {2}
    (tmp_path / "new").write_text("item_id,in_stock\nitem-1,false\n")
    os.replace(tmp_path / "new", path)
    eventually(lambda: sold(catalogue, bundle), ALL - {3})
    for broken in ("item_id,in_stock\nitem-5,perhaps\n", None):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "recsys.serving"):
            path.write_text(broken) if broken else path.unlink()
            eventually(lambda: (sold(catalogue, bundle), len(caplog.records))[1], 1)
        for _ in range(20):
            assert sold(catalogue, bundle) == ALL - {3}
        assert len(caplog.records) == 1  # said once, not at every request
        assert "what it said before stays in force" in caplog.text
    csv(tmp_path, "item_id,in_stock\nitem-6,false\n")
    eventually(lambda: sold(catalogue, bundle), ALL - {8})


def test_the_file_is_looked_at_no_more_often_than_told(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(path := csv(tmp_path, "item_id,in_stock\nitem-0,false\n"), check_s=3_600)
    path.write_text("item_id,in_stock\nitem-1,false\n")
    for _ in range(50):
        assert sold(catalogue, bundle) == ALL - {2}
    os.utime(path, (0, 0))  # long ago: a file of this moment may not be whole yet
    later_s = time.monotonic() + 3_601
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    catalogue.shelf(bundle)
    catalogue._reader.join()
    assert sold(catalogue, bundle) == ALL - {3}


def test_a_file_that_is_being_written_is_not_read_before_it_rests(bundle: Bundle, tmp_path: Path) -> None:
    """Half a list of what is sold out would put the other half on sale."""
    catalogue = Catalogue(path := csv(tmp_path, "item_id,in_stock\nitem-0,false\nitem-1,false\n"), check_s=0.2)
    with path.open("w") as file:
        for line in ("item_id,in_stock\n", *(f"item-{item},false\n" for item in range(10))):
            file.write(line)
            file.flush()
            for _ in range(10):
                time.sleep(0.01)
                assert sold(catalogue, bundle) == ALL - {2, 3}
    eventually(lambda: sold(catalogue, bundle), ALL - set(range(2, 12)))


def test_rows_that_are_kept_are_bounded(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.catalogue.shelf.KEPT_BYTES", 10 * 4 * ROWS)
    shelf = Catalogue(csv(tmp_path, "item_id,regions\nitem-0,aa\n")).shelf(bundle)
    rows = {code: shelf.row(0, frozenset({code}), "aa") for code in range(2, 100)}
    assert len(shelf._rows) == 10
    assert shelf.row(0, frozenset({99}), "aa") is rows[99]
    assert shelf.row(0, frozenset({2}), "aa") is not rows[2]


def test_an_item_of_several_categories_is_of_each(bundle: Bundle) -> None:
    from dataclasses import replace

    tags = pa.array([[], [1], *([2, 4] if row == 9 else [3] for row in range(2, ROWS))], pa.large_list(pa.int32()))
    items = bundle.items.set_column(bundle.items.column_names.index("feature_colour"), "feature_colour", tags)
    shelf = Catalogue(None).shelf(replace(bundle, items=items, version="tagged"))
    assert np.flatnonzero(shelf.row(0, frozenset({4}))[0] == 0).tolist() == [9]
    assert np.flatnonzero(shelf.row(0, frozenset({2, 3}))[0] == 0).tolist() == list(range(2, ROWS))
