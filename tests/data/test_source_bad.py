"""Files that cannot be right, read piece by piece: one sentence with the file in it, or a row set aside."""

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.check import check_expressions
from recsys.data.source import Events
from recsys.errors import InputError

Write = Callable[..., Path]
LINES = ("u,i,r\n" + "".join(f"user {n * 7919 % 1000},item {n},{n}.5\n" for n in range(20_000))).encode()
PARQUET = pl.DataFrame({"u": [f"u{n}" for n in range(3000)], "i": range(3000)})


def read(source: Events, folder: Path) -> pl.DataFrame:
    """As the ingest does: list, check, read in chunks."""
    chunks = []
    for piece in source.pieces(folder):
        scan = piece.scan()
        check_expressions(scan, source.expressions, piece.location)
        with piece.reading():
            chunks += list(scan.collect_batches(chunk_size=1000, maintain_order=True))
    return pl.concat(chunks) if chunks else pl.DataFrame()


def events(path: str, **fields: object) -> Events:
    return Events.model_validate({"path": path, "user": "u", "item": "i", **fields})


def says(message: str, *words: str) -> bool:
    return "\n" not in message and all(word in message for word in words)


GZIP, ZSTD = gzip.compress(LINES), pa.compress(LINES, codec="zstd", asbytes=True)
JSON = b'{"u": "a", "i": 1}\n'


@pytest.mark.parametrize("encoding", ["utf8", "latin-1"])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", ("empty.csv cannot be read (empty CSV)", "take it out")),
        ("empty.csv.gz", gzip.compress(b""), ("empty.csv.gz cannot be read (empty CSV)",)),
        ("cut.csv.gz", GZIP[: len(GZIP) // 2], ("cut.csv.gz cannot be read", "write it again")),
        ("tail.csv.gz", GZIP[:-6], ("tail.csv.gz cannot be read",)),
        ("sum.csv.gz", GZIP[:-8] + b"\0\0\0\0" + GZIP[-4:], ("sum.csv.gz cannot be read",)),
        ("cut.csv.zst", ZSTD[: len(ZSTD) // 2], ("cut.csv.zst cannot be read", "write it again")),
        ("bytes.csv.zst", ZSTD[:4] + bytes(200) + ZSTD[204:], ("bytes.csv.zst cannot be read",)),
        ("semicolons.csv", LINES.replace(b",", b";"), ("semicolons.csv has no column 'u', which user reads", "[u;i;r]")),
        ("twice.csv", b"u,i,u\na,b,c\n", ("twice.csv has two columns named 'u'", "rename one in its header")),
        ("open.csv", b'u,i\na,1\nb,"2\nc,3\n', ("open.csv cannot be read", "begins with '\"2\\nc,3", "set `quotes: false`")),
    ],
)
def test_text_that_cannot_be_read(
    name: str, content: bytes, words: tuple[str, ...], encoding: str, write: Write, raw: Path
) -> None:
    write(name, content)
    with pytest.raises(InputError) as caught:
        read(events(name, encoding=encoding), raw)
    assert says(str(caught.value), *words), caught.value


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.ndjson", b"", ("empty.ndjson cannot be read",)),
        ("half.ndjson", JSON * 200 + JSON[:9], ("half.ndjson cannot be read",)),
        ("cut.ndjson.gz", gzip.compress(JSON * 20_000)[:-20], ("cut.ndjson.gz cannot be read",)),
        ("latin.ndjson", JSON + '{"u": "é", "i": 1}\n'.encode("latin-1"), ("latin.ndjson cannot be read", "UTF-8")),
        ("other.ndjson", b'{"v": 1}\n', ("other.ndjson has no column 'u', which user reads", "[v]")),
        ("empty.parquet", b"", ("empty.parquet cannot be read",)),
        ("text.parquet", LINES, ("text.parquet cannot be read",)),
    ],
)
def test_other_files_that_cannot_be_read(name: str, content: bytes, words: tuple[str, ...], write: Write, raw: Path) -> None:
    write(name, content)
    with pytest.raises(InputError) as caught:
        read(events(name), raw)
    assert says(str(caught.value), *words), caught.value


def test_truncated_parquet(write: Write, raw: Path) -> None:
    whole = write("log.parquet", PARQUET).read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1], whole[:4] + bytes(2000) + whole[2004:]):
        write("log.parquet", damaged)
        with pytest.raises(InputError, match=r"log\.parquet cannot be read .*: write it again"):
            read(events("log.parquet"), raw)


def test_a_header_alone_has_no_rows(write: Write, raw: Path) -> None:
    write("log.csv", "u,i\n")
    assert read(events("log.csv"), raw).is_empty()


def test_parts_of_differing_columns(write: Write, raw: Path) -> None:
    write("log/1.parquet", PARQUET)
    for frame, words in (
        (PARQUET.drop("i"), ("2.parquet has no 'i' where", "1.parquet has Int64: make the files alike")),
        (PARQUET.cast({"i": pl.Float64}), ("2.parquet has 'i' as Float64 where", "1.parquet has Int64")),
    ):
        write("log/2.parquet", frame)
        with pytest.raises(InputError) as caught:
            events("log").pieces(raw)
        assert says(str(caught.value), *words), caught.value
    write("log/2.parquet", PARQUET.with_columns(more=1))  # what no expression reads may differ
    assert len(events("log").scan(raw).collect()) == 6000
    write("text/1.csv", LINES)
    write("text/2.csv.gz", gzip.compress(b"i,u,r\n"))
    with pytest.raises(InputError, match=r"2\.csv\.gz has the columns \[i, u, r\] where .*1\.csv has \[u, i, r\]"):
        events("text").pieces(raw)


def test_the_rest_of_a_text_file_is_read_around_what_is_odd_in_it(write: Write, raw: Path) -> None:
    """A mark at the start, line breaks in quotes, bytes that are no UTF-8, numbers that are none."""
    write("log.csv", b'\xef\xbb\xbfu,i,r\n"a\nb",1,nan\nc\xe9,2,1\nd,3,one\ne,4,2,surplus\nf\n')
    found = read(events("log.csv", columns={"r": "float"}), raw)
    assert found.rows() == [
        (0, "a\nb", "1", None, None),
        (1, "c\ufffd", "2", 1.0, None),
        (2, "d", "3", None, "r is not a number"),
        (3, "e", "4", 2.0, "row has more than 3 fields"),
        (4, "f", None, None, None),
    ]  # fmt: skip


def test_without_quotes_a_quotation_mark_is_a_character(write: Write, raw: Path) -> None:
    write("log.tsv", 'u\ti\na\t"One\nb\t12" disc\nc\t"x"\n')
    for encoding in ("utf8", "latin-1"):
        found = read(events("log.tsv", separator="\t", quotes=False, encoding=encoding), raw)
        assert found["i"].to_list() == ['"One', '12" disc', '"x"']


def test_nan_is_no_value(write: Write, raw: Path) -> None:
    write("log.parquet", pl.DataFrame({"u": [12.0, float("nan")], "i": [1, 2], "r": [float("nan"), 0.5]}))
    assert read(events("log.parquet"), raw).select("u", "i", "r").rows() == [(12.0, 1, None), (None, 2, 0.5)]


@pytest.mark.parametrize("text", ["COUNT(*)", "RANK() OVER (ORDER BY r)", "ROW_NUMBER() OVER (ORDER BY r)", "MAX(r)"])
def test_a_weight_that_reads_other_rows_is_refused(text: str, write: Write, raw: Path) -> None:
    """What is read in chunks would depend on their size."""
    write("log.csv", LINES[:300])
    with pytest.raises(InputError, match=r"weight = .* reads other rows than its own"):
        read(events("log.csv", weight=text, columns={"r": "float"}), raw)


def test_old_files_of_a_delta_table_are_not_taken_for_a_log(write: Write, raw: Path) -> None:
    write("lake/log/part-0.parquet", PARQUET)
    write("lake/log/_delta_log/00000000000000000000.json", "{}")
    for path in ("lake", "lake/log/*.parquet", "lake/*/*.parquet"):
        with pytest.raises(InputError, match=r"lake/log is a Delta table.*: set `path` to it alone"):
            events(path).pieces(raw)


CELL = st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=6)


@settings(max_examples=40, deadline=None)
@given(table=st.lists(st.tuples(CELL, CELL), max_size=12), encoding=st.sampled_from(["utf8", "latin-1"]))
def test_every_cell_comes_back(table: list[tuple[str, str]], encoding: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("raw")
    if encoding == "latin-1":
        table = [tuple(cell.encode("latin-1", "replace").decode("latin-1") for cell in row) for row in table]  # type: ignore[misc]
    text = "u,i\n" + "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in table)
    (folder / "log.csv.gz").write_bytes(gzip.compress(text.encode("utf8" if encoding == "utf8" else "latin-1")))
    found = events("log.csv.gz", encoding=encoding).scan(folder).collect()
    assert found.select("u", "i").rows() == [tuple(cell or None for cell in row) for row in table]
