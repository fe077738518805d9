"""Text files: separators, types, encodings, odd rows. What cannot be read goes to quarantine with a reason."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.dataset import Dataset

T0 = 1_700_000_000
EVENTS = {"path": "log.csv", "user": "u", "item": "i", "time": "t", "columns": {"t": "int", "r": "float"}}
GOOD = [f"u1,i{n},{T0 + n},{n}.5" for n in range(6)]
ALL = {"split": {"kind": "leave_one_out"}, "filters": {"max_bad_share": 0.9}}


def reasons(data: Dataset) -> list[tuple[int, str]]:
    return pl.read_parquet(data.folder / "quarantine" / "events.parquet").select("source_row", "reason").rows()


def times(data: Dataset) -> list[int]:
    return data.time_ms_E.tolist()


def test_bad_rows_are_set_aside_one_by_one(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    bad = [
        f"u1,i9,{T0},1,surplus",
        "u1,i9,soon,1",
        f"u1,i9,{T0},five",
        f",i9,{T0},1",
        f"u1, ,{T0},1",
        "u1,i9,,1",
        "u1,i9,99,1",
        f"u1,i9,{T0}000,1",
        "u1,i9",
        GOOD[2],
        f'"u1","i2",{T0 + 2},2.5',
    ]
    write("log.csv", "\n".join(["u,i,t,r", *GOOD, *bad, ""]))
    data = prepare({**EVENTS, "labels": {"like": "r >= 2"}}, **ALL)
    assert reasons(data) == [
        (6, "row has more than 4 fields"),
        (7, "t is not a number"),
        (8, "r is not a number"),
        (9, "user id is empty"),
        (10, "item id is empty"),
        (11, "time is empty or unreadable"),
        (12, "time is before 1971 or after 2100: is time_unit right?"),
        (13, "time is before 1971 or after 2100: is time_unit right?"),
        (14, "time is empty or unreadable"),
        (15, "exact duplicate of an earlier row"),
        (16, "exact duplicate of an earlier row"),
    ]
    assert [data.item_ids[i] for i in data.item_E] == [f"i{n}" for n in range(6)]
    assert data.manifest["report"]["quarantined_by_reason"]["exact duplicate of an earlier row"] == 2


def test_duplicates_are_judged_by_the_columns_the_config_reads(
    write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    """Ratings 4 and 5 are both a like, and yet they are two ratings; what no expression reads makes no difference."""
    write("log.csv", f"u,i,t,r,note\na,x,{T0},4,\na,x,{T0},5,\na,x,{T0},5,again\na,y,{T0 + 1},1,\na,z,{T0 + 2},1,\n")
    data = prepare({**EVENTS, "labels": {"like": "r >= 4"}}, **ALL)
    assert reasons(data) == [(2, "exact duplicate of an earlier row")]


def test_an_unreadable_row_does_not_make_a_readable_one_a_duplicate(
    write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    write("log.csv", f"u,i,t,r\na,x,{T0},oops\na,x,{T0},\na,y,{T0 + 1},1\na,z,{T0 + 2},1\n")
    data = prepare({**EVENTS, "labels": {"like": "r >= 4"}}, **ALL)
    assert reasons(data) == [(0, "r is not a number")]
    assert len(data.item_E) == 3


@pytest.mark.parametrize(
    ("value", "reason"), [("2", "label_like is not 0, 1 or null"), ("-inf", "label_like is not 0, 1 or null"), ("nan", None)]
)
def test_labels_are_zero_one_or_missing(
    value: str, reason: str | None, write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    write("log.csv", "\n".join(["u,i,t,r", f"a,x,{T0},1", f"a,y,{T0 + 1},0", f"a,z,{T0 + 2},", f"a,w,{T0 + 3},{value}"]))
    data = prepare({**EVENTS, "labels": {"like": "r"}}, **ALL)
    if reason:
        assert reasons(data) == [(3, reason)]
    else:
        assert data.manifest["report"]["rows_quarantined"] == 0
    assert len(data.examples["label_like"]) == 2


def test_numbers_out_of_range_are_named(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    rows = [f"a,{i},{T0 + n},{r}" for n, (i, r) in enumerate(zip("wxyz", ("0.5", "1", "1.5", "few"), strict=True))]
    write("log.csv", "\n".join(["u,i,t,r", *rows, f"a,v,{T0 + 9},1"]))
    data = prepare({**EVENTS, "columns": {"t": "int"}, "propensity": "r"}, **ALL)
    assert reasons(data) == [(2, "propensity is outside [0, 1]"), (3, "propensity is not a number")]


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("s", [T0, T0 + 1, T0 + 2]),
        ("s", [f"{T0}.0", f"{T0 + 1}.0", f"{T0 + 2}.0"]),
        ("ms", [T0 * 1000, (T0 + 1) * 1000, (T0 + 2) * 1000]),
        ("us", [T0 * 10**6, (T0 + 1) * 10**6, (T0 + 2) * 10**6]),
        ("iso", ["2023-11-14T22:13:20Z", "2023-11-14 22:13:21", "2023-11-15T00:13:22.000+02:00"]),
        ("iso", ["2023-11-14 22:13:20 UTC", "2023-11-14 22:13:21.000000", "2023-11-14T17:13:22-0500"]),
    ],
)
def test_times_of_every_unit_become_the_same_milliseconds(
    unit: str, values: list[object], write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    write("log.csv", "\n".join(["u,i,t", *(f"a,{n},{value}" for n, value in enumerate(values))]))
    data = prepare({"path": "log.csv", "user": "u", "item": "i", "time": "t", "time_unit": unit}, **ALL)
    assert times(data) == [T0 * 1000, (T0 + 1) * 1000, (T0 + 2) * 1000]


def test_days_and_minutes_are_moments_too_and_other_text_is_not(
    write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    write("log.csv", "u,i,t\na,x,2023-11-14\na,y,14/11/2023\na,z,2023-11-14 12:30\na,w,2023-11-15\n")
    data = prepare({"path": "log.csv", "user": "u", "item": "i", "time": "t", "time_unit": "iso"}, **ALL)
    assert times(data) == [1_699_920_000_000, 1_699_965_000_000, 1_700_006_400_000]
    assert reasons(data) == [(1, "time is empty or unreadable")]


def test_dates_and_zoned_timestamps_of_parquet_need_no_unit(
    write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    moments = pl.Series([T0, T0 + 1, T0 + 2]).cast(pl.Int64) * 1_000_000
    zoned = moments.cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("Asia/Tokyo")
    write("log.parquet", pl.DataFrame({"u": ["a"] * 3, "i": [1, 2, 3], "t": zoned}))
    data = prepare({"path": "log.parquet", "user": "u", "item": "i", "time": "t"}, **ALL)
    assert times(data) == [T0 * 1000, (T0 + 1) * 1000, (T0 + 2) * 1000]


def test_an_order_sorts_and_is_no_moment(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.csv", "u,i,t\na,x,3\na,y,-1\na,z,2\n")
    data = prepare({"path": "log.csv", "user": "u", "item": "i", "time": "t", "time_unit": "order"}, **ALL)
    assert [data.item_ids[i] for i in data.item_E] == ["y", "z", "x"]
    assert not data.manifest["has_time"]
    assert data.manifest["report"]["first_time_ms"] is None


def test_long_separators_latin_1_and_no_header(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.dat", f"a::1::{T0}\r\na::2::{T0 + 1}\r\na::3::{T0 + 2}\r\na::3\r\na::3::{T0}::x\r\n")
    write(
        "items.dat", "1::Les Misérables (1995)::Drama|Musical\n2::Amélie (2001)::Comedy\n3::Heat (1995)::\n".encode("latin-1")
    )
    table = {
        "path": "items.dat", "separator": "::", "header": False, "encoding": "latin-1", "columns": dict.fromkeys("itg", "text"),
        "id": "i", "title": "t", "features": {"genres": "STRING_TO_ARRAY(g, '|')", "year": "LEFT(RIGHT(t, 5), 4)"},
    }  # fmt: skip
    events = {
        **EVENTS,
        "path": "log.dat",
        "separator": "::",
        "header": False,
        "columns": {"u": "text", "i": "text", "t": "int"},
    }
    data = prepare(events, items=table, **ALL)
    assert reasons(data) == [(3, "row does not have 3 fields"), (4, "row does not have 3 fields")]
    assert data.vocabulary("item", "year") == ["1995", "2001"]
    assert data.vocabulary("item", "genres") == ["Comedy", "Drama", "Musical"]
    titles = pl.read_ipc(data.folder / "items.arrow")["title"].to_list()
    assert titles[2:] == ["Les Misérables (1995)", "Amélie (2001)", "Heat (1995)"]


def test_bytes_of_another_encoding_in_an_id_are_found(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    lines = ["u,i,t,r", *GOOD, f"Amélie,i1,{T0},1"]
    write("log.csv", "\n".join(lines).encode("latin-1"))
    assert reasons(prepare(EVENTS, **ALL)) == [(6, "user id is not UTF-8: is encoding right?")]
    assert "Amélie" in prepare({**EVENTS, "encoding": "latin-1"}, **ALL).user_ids


def test_a_byte_order_mark_quotes_and_line_breaks_in_them(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    rows = [f'"a","one, two",{T0},1', f'a,"three\nfour",{T0 + 1},1', f'a,"say ""hi""",{T0 + 2},']
    write("log.csv", "\ufeff" + "\n".join(["u,i,t,r", *rows]))
    data = prepare(EVENTS, **ALL)
    assert [data.item_ids[i] for i in data.item_E] == ["one, two", "three\nfour", 'say "hi"']


def test_ids_that_are_whole_numbers_are_written_without_a_fraction(
    write: Callable[..., Path], prepare: Callable[..., Dataset]
) -> None:
    """A column with a gap is often stored as floats, and must still join the table's whole numbers."""
    log = pl.DataFrame({"u": [1.0, 1.0, 1.0, None], "i": [7.0, 2.0**53 - 1, 2.5, 7.0], "t": [T0, T0 + 1, T0 + 2, T0]})
    write("log.parquet", log)
    write("items.parquet", pl.DataFrame({"i": [7], "kind": ["x"]}))
    data = prepare(
        {**EVENTS, "path": "log.parquet"}, items={"path": "items.parquet", "id": "i", "features": {"k": "kind"}}, **ALL
    )
    assert data.item_ids[2:] == ["2.5", "7", "9007199254740991"]
    assert data.codes("k", "item").item_E.tolist() == [1, 1, 1, 2, 1]
    assert reasons(data) == [(3, "user id is empty")]


def test_ndjson_and_columns_that_appear_late(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    rows = [f'{{"u": "a", "i": "{n}", "t": {T0 + n}}}' for n in range(150)]
    write("log.ndjson", "\n".join([*rows, f'{{"u": "a", "i": "z", "t": {T0 + 200}, "liked": true}}']))
    data = prepare({"path": "log.ndjson", "user": "u", "item": "i", "time": "t", "labels": {"like": "liked"}}, **ALL)
    assert len(data.item_E) == 151
    assert data.examples["label_like"].tolist() == [1.0]


def test_columns_named_like_ours_do_no_harm(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    names = ["row", "user_id", "time_ms", "split", "position", "reason", "in_history"]
    write("log.csv", "\n".join([",".join(names), *(f"{n},a,{T0 + n},s,p,r,h" for n in range(3))]))
    data = prepare({"path": "log.csv", "user": "user_id", "item": '"row"', "time": "time_ms"}, **ALL)
    assert [data.item_ids[i] for i in data.item_E] == ["0", "1", "2"]
