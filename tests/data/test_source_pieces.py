"""Pieces: each file by itself, whole and in order, whatever its format, compression and folder."""

import gzip
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from recsys.data.piece import Piece
from recsys.data.source import Events, Table
from recsys.errors import InputError

LOG = {"user": "u", "item": "i"}
LINES = "u,i,r\n" + "".join(f"u{n % 3},i{n},{n}.5\n" for n in range(50))
ROWS = [(n, f"u{n % 3}", f"i{n}", f"{n}.5") for n in range(50)]

Write = Callable[..., Path]


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def rows(piece: Piece, *columns: str) -> list[tuple[Any, ...]]:
    """Read as the ingest does: in chunks, in order."""
    scan = piece.scan().select(*(["_place", *columns] if columns else [pl.all()]))
    return [row for chunk in scan.collect_batches(chunk_size=7, maintain_order=True) for row in chunk.iter_rows()]


def events(**fields: Any) -> Events:
    return Events.model_validate({**LOG, **fields})


@pytest.mark.parametrize(
    ("name", "pack"), [("log.csv", bytes), ("log.csv.gz", gzip.compress), ("log.csv.zst", zstd), ("log.CSV.GZ", gzip.compress)]
)
@pytest.mark.parametrize("encoding", ["utf8", "latin-1"])
def test_compressed_text_is_text(name: str, pack: Callable[[bytes], bytes], encoding: str, write: Write, raw: Path) -> None:
    write(name, pack(LINES.replace("i7", "é7").encode(encoding)))
    (piece,) = events(path=name, encoding=encoding).pieces(raw)
    assert rows(piece, "u", "i", "r") == [(n, u, i.replace("i7", "é7"), r) for n, u, i, r in ROWS]
    assert piece.scan().select(pl.len()).collect().item() == 50
    assert piece.scan().filter(pl.col("u") == "u1").head(2).collect()["_place"].to_list() == [1, 4]
    assert (piece.name, piece.unit, piece.bytes) == (name, "", (raw / name).stat().st_size)


def test_files_compressed_in_several_parts_are_read_whole(write: Write, raw: Path) -> None:
    head, tail = LINES[:300].encode(), LINES[300:].encode()
    for name, pack in (("log.csv.gz", gzip.compress), ("log.csv.zst", zstd)):
        write(name, pack(head) + pack(tail))
        for encoding in ("utf8", "latin-1"):
            (piece,) = events(path=name, encoding=encoding).pieces(raw)
            assert rows(piece, "u", "i", "r") == ROWS


def test_ndjson_of_every_compression(write: Write, raw: Path) -> None:
    lines = "".join(f'{{"u": "u{n % 3}", "i": {n}}}\n' for n in range(50)).encode()
    for name, content in (("a.ndjson", lines), ("b.ndjson.gz", gzip.compress(lines)), ("c.jsonl.zst", zstd(lines))):
        write(name, content)
        (piece,) = events(path=name).pieces(raw)
        assert rows(piece, "u", "i") == [(n, f"u{n % 3}", n) for n in range(50)]


def test_declared_ndjson_keeps_ids_exact_and_sets_odd_values_aside(write: Write, raw: Path) -> None:
    write("log.ndjson", '{"u": 9007199254740993, "i": "x", "r": 1}\n{"u": "a", "i": 1.5, "r": "many"}\n{"u": "", "r": null}\n')
    source = events(path="log.ndjson", columns={"u": "text", "i": "text", "r": "int"}, labels={"like": "r >= 1"})
    (piece,) = source.pieces(raw)
    assert rows(piece, "u", "i", "r", "_unreadable") == [
        (0, "9007199254740993", "x", 1, None), (1, "a", "1.5", None, "r is not a number"), (2, None, None, None, None),
    ]  # fmt: skip


def test_ndjson_files_share_their_columns(write: Write, raw: Path) -> None:
    """A column that a file does not have, or only as null, is null there; a whole number may be a fraction elsewhere."""
    write("log/1.ndjson", '{"u": "a", "i": 1, "r": 2}\n')
    write("log/2.ndjson", '{"u": "b", "i": 2, "r": null}\n')
    write("log/3.ndjson", '{"u": "c", "i": 3}\n')
    write("log/4.ndjson", '{"u": "d", "i": 4, "r": 2.5}\n')
    source = events(path="log", labels={"like": "r >= 2"})
    assert [rows(piece, "u", "r") for piece in source.pieces(raw)] == [
        [(0, "a", 2)],
        [(0, "b", None)],
        [(0, "c", None)],
        [(0, "d", 2.5)],
    ]
    assert source.scan(raw).select("_place", "r").collect().rows() == [(0, 2.0), (1, None), (2, None), (3, 2.5)]
    write("log/5.ndjson", '{"u": 5, "i": 4}\n')
    with pytest.raises(InputError, match=r"5\.ndjson has 'u' as Int64 where .*1\.ndjson has String: make the files alike"):
        source.pieces(raw)


def test_pieces_survive_the_way_to_another_process(write: Write, raw: Path) -> None:
    write("log.csv", LINES)
    write("log.parquet", pl.DataFrame({"u": ["a"], "i": [1]}))
    write("log.ndjson", '{"u": "a", "i": 1}\n')
    for source in (
        events(path="log.csv"),
        events(path="log.parquet"),
        events(path="log.ndjson"),
        Table(path="log.csv", id="u"),
    ):
        for piece in source.pieces(raw):
            copy = pickle.loads(pickle.dumps(piece))
            assert copy == piece
            assert copy.scan().collect().equals(piece.scan().collect())


def test_a_fingerprint_is_of_the_content(write: Write, raw: Path) -> None:
    write("a/x.csv", LINES)
    write("b/y.csv", LINES)
    write("c/z.csv", LINES + "u1,i1,1\n")
    first, second, third = (events(path=name).pieces(raw)[0].fingerprint() for name in "abc")
    assert first == second != third


FRAME = pl.DataFrame({"u": ["a", "b"], "i": [1, 2]})


@pytest.mark.parametrize(
    ("arrives", "units"),
    [
        ("together", ["", "", "", ""]),
        ("by_file", ["log/day=2/a.parquet", "log/day=2/b.parquet", "log/day=10/a.parquet", "log/day=10/late/c.parquet"]),
        ("by_folder", ["log/day=2", "log/day=2", "log/day=10", "log/day=10/late"]),
    ],
)
def test_units_arrive_in_their_natural_order(arrives: str, units: list[str], write: Write, raw: Path) -> None:
    for name in ("day=10/late/c", "day=10/a", "day=2/b", "day=2/a"):
        write(f"log/{name}.parquet", FRAME)
    pieces = events(path="log", arrives=arrives).pieces(raw)
    assert [piece.unit for piece in pieces] == units
    assert [piece.name for piece in pieces][:2] == ["log/day=2/a.parquet", "log/day=2/b.parquet"]


def test_the_files_of_a_unit_follow_each_other(write: Write, raw: Path) -> None:
    for name in ("a/1", "a/b/1", "a/z"):
        write(f"{name}.parquet", FRAME)
    assert [piece.name for piece in events(path="a", arrives="by_folder").pieces(raw)] == [
        "a/1.parquet", "a/z.parquet", "a/b/1.parquet",
    ]  # fmt: skip


def test_partition_keys_are_columns(write: Write, raw: Path) -> None:
    for day, country in (("2024-05-01", "DE"), ("2024-05-02", "a%2Fb"), ("2024-05-03", "__HIVE_DEFAULT_PARTITION__")):
        write(f"log/date={day}/country={country}/part.parquet", FRAME)
        write(f"text/date={day}/hour={int(day[-1])}/part.csv", "u,i\na,1\n")
    source = events(path="log", time="date", time_unit="date", context={"country": "country"})
    assert [rows(piece, "date", "country")[1] for piece in source.pieces(raw)] == [
        (1, "2024-05-01", "DE"), (1, "2024-05-02", "a/b"), (1, "2024-05-03", None),
    ]  # fmt: skip
    hours = events(path="text/date=*/*/*.csv", columns={"hour": "int"}, context={"next": "hour + 1"})
    assert [rows(piece, "date", "hour") for piece in hours.pieces(raw)] == [[(0, f"2024-05-0{n}", n)] for n in (1, 2, 3)]
    assert hours.scan(raw).collect()["hour"].to_list() == [1, 2, 3]


def test_without_a_header_the_keys_are_no_columns_of_the_file(write: Write, raw: Path) -> None:
    write("log/hour=7/part.dat", "a::1\nb::2\n")
    columns = {"u": "text", "hour": "int", "i": "int"}
    (piece,) = events(path="log", separator="::", header=False, columns=columns).pieces(raw)
    assert rows(piece, "u", "i", "hour", "_unreadable") == [(0, "a", 1, 7, None), (1, "b", 2, 7, None)]


def test_a_column_in_the_file_goes_before_the_key(write: Write, raw: Path) -> None:
    write("log/i=9/part.parquet", FRAME)
    assert rows(events(path="log").pieces(raw)[0], "i") == [(0, 1), (1, 2)]


def test_a_key_that_some_files_lack_is_named(write: Write, raw: Path) -> None:
    write("log/day=1/part.parquet", FRAME)
    write("log/part.parquet", FRAME)
    with pytest.raises(InputError, match=r"log/part\.parquet has no 'day' where .*day=1/part\.parquet has String"):
        events(path="log", context={"day": "day"}).pieces(raw)


def test_a_key_that_does_not_fit_its_type_sets_rows_aside(write: Write, raw: Path) -> None:
    write("log/day=soon/part.parquet", FRAME)
    (piece,) = events(path="log", columns={"day": "int"}, context={"day": "day"}).pieces(raw)
    assert rows(piece, "day", "_unreadable") == [(0, None, "day is not a number"), (1, None, "day is not a number")]


def test_names_with_wildcards_in_them_are_names(write: Write, raw: Path) -> None:
    write("log/a[1].parquet", FRAME)
    write("log/a1.parquet", FRAME.head(1))
    assert [len(rows(piece)) for piece in events(path="log").pieces(raw)] == [1, 2]
    write("text/a[1].csv", "u,i\na,1\n")
    write("json/a[1].ndjson", '{"u": "a", "i": 1}\n')
    for path in ("text", "json"):
        assert len(rows(events(path=path).pieces(raw)[0])) == 1


def test_exploded_rows_are_counted_one_by_one(write: Write, raw: Path) -> None:
    write("log.parquet", pl.DataFrame({"u": ["a", "b"], "i": [[3, 4], [5]]}))
    assert rows(events(path="log.parquet", explode="i").pieces(raw)[0], "u", "i") == [(0, "a", 3), (1, "a", 4), (2, "b", 5)]


@pytest.mark.parametrize(("dtype", "limit"), [(pl.Float64, 2.0**53), (pl.Float32, 2.0**24)])
def test_ids_that_a_float_cannot_tell_apart_are_set_aside(dtype: Any, limit: float, write: Write, raw: Path) -> None:
    ids = pl.Series([12.0, limit - 1, limit, -limit, None, float("nan")], dtype=dtype)
    write("log.parquet", pl.DataFrame({"u": ["a"] * 6, "i": ids}))
    reason = f"item id is a float of 2^{int(limit).bit_length() - 1} or more: ids of that size must be stored whole"
    found = rows(events(path="log.parquet").pieces(raw)[0], "_unreadable")
    assert found == [(0, None), (1, None), (2, reason), (3, reason), (4, None), (5, None)]
    assert rows(Table(path="log.parquet", id="i").pieces(raw)[0], "_unreadable")[2][1] == reason.removeprefix("item ")


def test_whole_ids_of_any_size_stay_exact(write: Write, raw: Path) -> None:
    write("log.parquet", pl.DataFrame({"u": ["a", "a"], "i": [2**63 - 1, 2**63 - 2]}))
    write("log.csv", f"u,i\na,{2**63 - 1}\na,{2**63 - 2}\n")
    write("log.ndjson", f'{{"u": "a", "i": {2**63 - 1}}}\n{{"u": "a", "i": {2**63 - 2}}}\n')
    for path in ("log.parquet", "log.csv", "log.ndjson"):
        assert [str(row[1]) for row in rows(events(path=path).pieces(raw)[0], "i")] == [str(2**63 - 1), str(2**63 - 2)]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"path": "ftp://host/log.csv"}, "unknown scheme 'ftp'"),
        ({"path": "s3://bucket/log.xlsx"}, "unknown suffix '.xlsx'"),
        ({"path": "s3://bucket/log.parquet.gz"}, "unknown suffix '.parquet.gz'"),
        ({"path": "s3://bucket/*.csv.gz"}, "copy them to a local disk"),
        ({"path": "s3://bucket/*.parquet", "arrives": "by_file"}, "arrives 'by_file' needs the names of the files"),
        ({"path": "log.csv", "weight": "CASE kind WHEN"}, "is not a column or a Polars SQL expression"),
        ({"path": "log.csv", "user": "visitor id"}, "'visitor id' names its result"),
        ({"path": "log.csv", "arrives": "daily"}, "'by_folder'"),
    ],
)
def test_paths_that_cannot_be_are_refused_at_load(fields: dict[str, str], word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        events(**fields)
    assert word in str(caught.value)


def test_the_weight_is_an_expression_like_the_others() -> None:
    source = events(path="log.csv", weight="CASE kind WHEN 'buy' THEN 5 ELSE 1 END")
    assert source.expressions["weight"] == "CASE kind WHEN 'buy' THEN 5 ELSE 1 END"
    assert source.read_columns == ["i", "kind", "u"]


def test_the_examples_of_the_page_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text()
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(events:.*?)```", page, re.DOTALL)]
    assert {events(**example["events"]).time_unit for example in examples} >= {"s", "ms", "date", "auto"}
