"""The content hash names what a dataset holds: rows, not their order, their files or their formats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.artefact import code_version
from recsys.data import Data
from recsys.data.build import build
from recsys.data.identity import content
from recsys.dataset import Dataset

T0 = 1_700_000_000
SPLIT = {"kind": "leave_one_out"}
EVENTS = {
    "user": "u", "item": "i", "time": "t", "columns": {"t": "int", "stars": "int", "watched": "float", "often": "float"},
    "labels": {"like": "stars >= 4", "watch": {"kind": "quantile", "value": "watched"}}, "context": {"device": "device"},
    "weight": "often", "history": "stars > 1",
}  # fmt: skip
ROWS = pl.DataFrame(
    [
        (f"u{n % 4}", f"i{n % 5}", T0 + n * n, n % 5 + 1, n * 1.5, 1.0 + n % 2, "web" if n % 3 else "app", "unread")
        for n in range(20)
    ],
    ["u", "i", "t", "stars", "watched", "often", "device", "note"],
    orient="row",
)


@pytest.fixture(scope="session")
def fingerprint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The content hash of a dataset made from frames, each of which becomes a file."""

    def fingerprint(*frames: pl.DataFrame, form: str = "parquet", shards: int = 1, **events: Any) -> str:
        folder = tmp_path_factory.mktemp("log")
        for number, frame in enumerate(frames):
            path = folder / "log" / f"{number}" / f"part.{form}"
            path.parent.mkdir(parents=True)
            getattr(frame, f"write_{'csv' if form == 'tsv' else form}")(path, **({"separator": "\t"} if form == "tsv" else {}))
        events = EVENTS | {"path": "log", "separator": "\t" if form == "tsv" else ","} | events
        data = Data.model_validate({"events": events, "split": SPLIT, "shards": shards, "filters": {"max_bad_share": 0.5}})
        return str(build(data, folder, folder / "dataset")["content"])

    return fingerprint


def test_files_formats_ids_and_shards_do_not_matter(fingerprint: Callable[..., str]) -> None:
    expected = fingerprint(ROWS)
    assert expected.endswith("-20")
    assert fingerprint(ROWS[:7], ROWS[7:8], ROWS[8:]) == expected
    assert fingerprint(ROWS[12:], ROWS[:12]) == expected
    for form in ("csv", "tsv", "ndjson"):
        assert fingerprint(ROWS, form=form) == expected
    assert fingerprint(ROWS, shards=3) == expected
    days = [ROWS[:5], ROWS[5:9], ROWS[9:]]  # dense ids follow the arrival of users and items
    assert fingerprint(*days, arrives="by_folder") == expected
    assert fingerprint(ROWS.with_columns(pl.col("t") * 1000), time_unit="ms") == expected
    assert fingerprint(ROWS.with_columns(note=pl.lit("other"))) == expected
    assert fingerprint(ROWS.rename({"u": "uid"}), user="uid") == expected
    assert fingerprint(pl.concat([ROWS, ROWS[:3]])) == expected  # exact duplicates go to quarantine


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(len(ROWS))), cut=st.integers(1, len(ROWS) - 1))
def test_the_order_of_rows_does_not_matter(fingerprint: Callable[..., str], order: list[int], cut: int) -> None:
    shuffled = ROWS[order]
    assert fingerprint(shuffled[:cut], shuffled[cut:]) == fingerprint(ROWS)


CHANGES = {
    "user": pl.lit("u9").alias("u"), "item": pl.lit("i9").alias("i"), "time": (pl.col("t") + 1).alias("t"),
    "label": pl.lit(5).alias("stars"), "value of a fitted label": (pl.col("watched") + 1).alias("watched"),
    "weight": (pl.col("often") / 2).alias("often"), "context": pl.lit("tv").alias("device"),
    "context to null": pl.lit(None, pl.String).alias("device"), "history": pl.lit(1).alias("stars"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_one_changed_value_matters(fingerprint: Callable[..., str], name: str) -> None:
    first = ROWS.with_row_index("n").with_columns(n=pl.col("n") == 2)
    changed = first.with_columns(pl.when("n").then(CHANGES[name]).otherwise(CHANGES[name].meta.output_name())).drop("n")
    assert not changed.equals(ROWS)
    assert fingerprint(changed) != fingerprint(ROWS)


def test_two_rows_that_swap_a_value_matter(fingerprint: Callable[..., str]) -> None:
    rows = ROWS.to_dicts()
    rows[3]["device"], rows[4]["device"] = rows[4]["device"], rows[3]["device"]
    rows[3]["device"] = "app" if rows[3]["device"] == rows[4]["device"] else rows[3]["device"]
    assert fingerprint(pl.DataFrame(rows)) != fingerprint(ROWS)


def test_a_row_less_or_twice_matters(fingerprint: Callable[..., str]) -> None:
    expected = fingerprint(ROWS)
    assert fingerprint(ROWS[1:]).endswith("-19")
    twice = pl.concat([ROWS, ROWS.filter(stars=4)[:1].with_columns(stars=pl.lit(5, pl.Int64))])  # the same like again
    assert fingerprint(twice).endswith("-21")
    assert fingerprint(twice).split("-")[0] != expected.split("-")[0]


def test_the_hash_of_parts_adds_up() -> None:
    whole = content(None, 2**64 - 1 + 7, 5)
    assert whole == content(content(None, 2**64 - 1, 2), 7, 3) == "0000000000000006-5"


def test_a_log_without_time_is_in_the_order_of_its_files(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    rows = ["x,3", "y,1", "x,1", "x,2", "y,2", "x,9", "y,3"]
    events = {"path": "log", "user": "u", "item": "i"}
    write("log/1.csv", "\n".join(["u,i", *rows]))
    whole = prepare(events, split=SPLIT)
    expected = whole.manifest["content"]
    assert [whole.item_ids[i] for i in whole.item_E] == ["3", "1", "2", "9", "1", "2", "3"]
    write("log/1.csv", "\n".join(["u,i", *rows[:4]]))
    write("log/2.csv", "\n".join(["u,i", *rows[4:]]))
    parts = prepare(events, split=SPLIT)
    assert [parts.item_ids[i] for i in parts.item_E] == ["3", "1", "2", "9", "1", "2", "3"]
    assert parts.manifest["content"] == expected


def test_the_manifest_says_what_the_dataset_was_made_from_and_by_which_code(raw: Path, tmp_path: Path) -> None:
    ROWS.write_csv(raw / "log.csv")
    data = Data.model_validate({"events": EVENTS | {"path": "log.csv"}, "split": SPLIT})
    manifest = build(data, raw, tmp_path / "dataset")
    assert Data.model_validate(manifest["config"]) == data
    assert manifest["code"] == code_version()
    assert manifest["data_fingerprint"] != build(data.model_copy(update={"shards": 2}), raw, tmp_path / "b")["data_fingerprint"]
