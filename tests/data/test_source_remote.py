"""What is not a plain file: URLs, read by Polars itself, and Delta tables."""

import gzip
import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.data.source import Events
from recsys.errors import InputError

FRAME = pl.DataFrame({"u": ["a", "b", "a"], "i": [1, 2, 3]})
ROWS = [(0, "a", 1), (1, "b", 2), (2, "a", 3)]
Write = Callable[..., Path]


def events(path: str, **fields: Any) -> Events:
    return Events.model_validate({"path": path, "user": "u", "item": "i", **fields})


@pytest.fixture
def server(raw: Path) -> Iterator[str]:
    """Serves the raw files, parts of them on request, as object stores do."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            file = raw / self.path.lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            content, size = file.read_bytes(), file.stat().st_size
            wanted = (self.headers.get("Range") or "").removeprefix("bytes=")
            if wanted:
                first, _, last = wanted.partition("-")
                start = int(first) if first else max(0, size - int(last))
                content = content[start : int(last) + 1 if first and last else None]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{size}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_files_behind_http_are_read(server: str, write: Write, raw: Path) -> None:
    write("day=3/log.parquet", FRAME)
    write("day=3/log.csv.gz", gzip.compress(FRAME.write_csv().encode()))
    write("day=3/log.ndjson", FRAME.write_ndjson())
    for name in ("log.parquet", "log.csv.gz", "log.ndjson"):
        url = f"{server}/day=3/{name}"
        (piece,) = events(url, columns={"i": "int"}, context={"day": "day"}).pieces(raw)
        assert piece.scan().select("_place", "u", "i").collect().rows() == ROWS
        assert set(piece.scan().collect()["day"]) == {"3"}
        assert (piece.name, piece.bytes, piece.fingerprint()) == (url, 0, f"url:{url}")
        assert piece.scan().select(pl.len()).collect(engine="streaming").item() == 3


def test_a_url_may_have_wildcards_where_the_store_lists_its_files(write: Write, raw: Path) -> None:
    for day in ("2024-05-01", "2024-05-02"):
        write(f"log/date={day}/part.parquet", FRAME)
        write(f"log/date={day}/part.ndjson", FRAME.write_ndjson())
    for suffix in ("parquet", "ndjson"):
        source = events(f"file://{raw}/log/date=*/*.{suffix}", time="date", time_unit="date")
        found = source.scan(raw).select("_place", "u", "date").collect()
        assert found.rows() == [
            (n, u, day) for n, (u, day) in enumerate((u, f"2024-05-0{d}") for d in (1, 2) for u in FRAME["u"])
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["nowhere.parquet", "nowhere.csv", "nowhere.ndjson"])
def test_a_url_of_nothing_is_named(name: str, server: str, raw: Path) -> None:
    for url in (f"{server}/{name}", f"file://{raw}/{name}"):
        with pytest.raises(InputError) as caught:
            events(url).pieces(raw)
        assert str(caught.value).startswith(f"{url} cannot be read (")
        assert "check the URL, the network and the credentials in the environment" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_url_that_does_not_answer_is_named(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars asks ten times, for some seconds; this is what it raises then."""

    def refuse(*_: object, **__: object) -> pl.LazyFrame:
        raise ConnectionRefusedError("object-store error: error sending request, after 10 retries\n\nmore")

    monkeypatch.setattr(pl, "scan_parquet", refuse)
    with pytest.raises(InputError) as caught:
        events("http://127.0.0.1:9/log.parquet").pieces(raw)
    assert str(caught.value) == (
        "http://127.0.0.1:9/log.parquet cannot be read (object-store error: error sending request, after 10 retries): "
        "check the URL, the network and the credentials in the environment"
    )


def test_only_utf8_comes_from_afar(server: str, write: Write, raw: Path) -> None:
    write("log.csv", "u,i\n")
    with pytest.raises(InputError, match="encoding latin-1: write it as UTF-8, or copy it"):
        events(f"{server}/log.csv", encoding="latin-1").pieces(raw)


def test_a_delta_table_without_its_reader(write: Write, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("log/_delta_log/00000000000000000000.json", "{}")
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(InputError, match=r"log is a Delta table: install its reader with `pip install recsys\[delta\]`"):
        events("log").pieces(raw)


def test_a_delta_table_is_read_as_it_was_when_listed(raw: Path) -> None:
    pytest.importorskip("deltalake")
    FRAME.write_delta(raw / "log", delta_write_options={"partition_by": ["u"]})
    source = events("log")
    (before,) = source.pieces(raw)
    FRAME.write_delta(raw / "log", mode="append")
    (after,) = source.pieces(raw)
    assert [piece.scan().select(pl.len()).collect().item() for piece in (before, after)] == [3, 6]
    assert sorted(before.scan().select("u", "i").collect().rows()) == sorted(FRAME.rows())
    chunks = list(after.scan().collect_batches(chunk_size=2, maintain_order=True))
    assert pl.concat(chunks)["_place"].to_list() == list(range(6))
    table, _, version = after.fingerprint().rpartition("@")
    assert (table, version) == (before.fingerprint().rpartition("@")[0], "1")
    assert table.startswith("delta:")
    assert (after.name, after.unit) == ("log", "")
    assert after.bytes == sum(file.stat().st_size for file in (raw / "log").rglob("*.parquet"))
    with pytest.raises(InputError, match="arrives whole: leave `arrives` at together"):
        events("log", arrives="by_folder").pieces(raw)


def test_a_broken_delta_log_and_a_url_without_one(write: Write, raw: Path) -> None:
    pytest.importorskip("deltalake")
    write("log/_delta_log/00000000000000000000.json", "no json")
    (raw / "plain").mkdir()
    for path in ("log", f"file://{raw}/plain"):
        with pytest.raises(InputError, match="cannot be read as a Delta table") as caught:
            events(path).pieces(raw)
        assert "\n" not in str(caught.value)
