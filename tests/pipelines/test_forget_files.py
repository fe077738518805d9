"""Raw files and journals without some users: other lines keep their bytes, and what cannot be rewritten is refused."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from pipelines.forget.live import blank, forget_in
from pipelines.forget.raw import erase, has_rows
from recsys.data import Data
from recsys.errors import InputError

LINES = {"text": b'u,i,t\n1,a,5\n22,b,6\n1,c,7\n3,"d ",8\n', "ndjson": b'{"u":"1","i":"a","t":5}\n{"u": "22", "i":"b","t":6}\n'}


def config(path: str, **more: object) -> Data:
    return Data.model_validate({"events": {"path": path, "user": "u", "item": "i", "time": "t", **more}})


def test_lines_of_others_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(LINES["text"])
    assert erase(config("log.csv"), tmp_path, ["1", "unheard of"]) == {"log.csv": 2}
    assert (tmp_path / "log.csv").read_bytes() == b'u,i,t\n22,b,6\n3,"d ",8\n'
    assert erase(config("log.csv"), tmp_path, ["1"]) == {}
    assert has_rows(config("log.csv"), tmp_path, ["22"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_compressed_text_and_ndjson_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(LINES["text"]))
    (tmp_path / "log.ndjson").write_bytes(LINES["ndjson"])
    erase(config("log.csv.gz"), tmp_path, ["22"])
    assert gzip.decompress((tmp_path / "log.csv.gz").read_bytes()) == LINES["text"].replace(b"22,b,6\n", b"")
    erase(config("log.ndjson"), tmp_path, ["1"])
    assert (tmp_path / "log.ndjson").read_bytes() == b'{"u": "22", "i":"b","t":6}\n'


def test_zstandard_is_rewritten_as_zstandard(tmp_path: Path) -> None:
    """A second file is there that has the user, too: neither keeps a row of theirs."""
    pl.DataFrame({"u": ["1", "22"], "i": ["a", "b"], "t": [5, 6]}).write_ndjson(tmp_path / "b.ndjson.zst", compression="zstd")
    pl.DataFrame({"u": ["1", "3"], "i": ["a", "b"], "t": [5, 6]}).write_ndjson(tmp_path / "a.ndjson")
    assert erase(config("*.ndjson*"), tmp_path, ["1"]) == {"a.ndjson": 1, "b.ndjson.zst": 1}
    assert (tmp_path / "b.ndjson.zst").read_bytes()[:4] == bytes.fromhex("28b52ffd")
    assert [pl.read_ndjson(path)["u"].to_list() for path in sorted(tmp_path.iterdir())] == [["3"], ["22"]]


def test_parquet_keeps_schema_and_row_groups_and_the_user_table_is_rewritten_too(tmp_path: Path) -> None:
    log = pl.DataFrame({"u": [1, 2, 1, 3], "i": ["a", "b", "c", "d"], "t": [1, 2, 3, 4], "more": [[1], [], None, [2, 3]]})
    log.write_parquet(tmp_path / "log.parquet", row_group_size=2)
    pl.DataFrame({"u": [1, 2], "age": [30, 40]}).write_parquet(tmp_path / "users.parquet")
    data = config("log.parquet").model_dump() | {"users": {"path": "users.parquet", "id": "u", "features": {"age": "age"}}}
    assert erase(Data.model_validate(data), tmp_path, ["1"]) == {"log.parquet": 2, "users.parquet": 1}
    assert pl.read_parquet(tmp_path / "log.parquet").equals(log.filter(pl.col("u") != 1))
    assert pl.read_parquet(tmp_path / "users.parquet")["u"].to_list() == [2]


def test_text_whose_rows_are_not_lines_is_refused_and_kept(tmp_path: Path) -> None:
    text = b'u,i,t\n1,"a\nb",5\n2,c,6\n'
    (tmp_path / "log.csv").write_bytes(text)
    with pytest.raises(InputError, match="rows that are not one line each"):
        erase(config("log.csv"), tmp_path, ["1"])
    assert (tmp_path / "log.csv").read_bytes() == text


def test_lines_of_a_journal_are_blanked_in_place_and_the_mark_of_forgetting_is_kept(tmp_path: Path) -> None:
    day = tmp_path / "journal" / "events" / "day=2026-01-01"
    day.mkdir(parents=True)
    line = {"id": "e1", "user_id": "u1", "item_id": "a", "time_ms": 5, "event": "click", "request_id": None, "received_ms": 5}
    posted = b"".join(json.dumps(line | {"user_id": user}).encode() + b"\n" for user in ("u1", "u2", "u1"))
    (day / "host-1-1.posted.ndjson").write_bytes(posted)
    (tmp_path / "journal" / "id").write_text("j")
    forget_in(tmp_path, ["u1"])
    forget_in(tmp_path, ["u1"])
    assert blank(tmp_path, ["u1"]) == 2
    assert blank(tmp_path, ["u1"]) == 0
    after = (day / "host-1-1.posted.ndjson").read_bytes()
    assert len(after) == len(posted)
    assert b"u1" not in after
    log = pl.read_ndjson(day / "host-1-1.posted.ndjson")
    assert log["user_id"].to_list() == ["u2"]
    marks = list(tmp_path.glob("journal/events/*/*.forgotten.ndjson"))
    assert sum(path.read_bytes().count(b'"u1"') for path in marks) == 1


def test_a_folder_that_is_no_servers_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a journal nor a state"):
        forget_in(tmp_path, ["u1"])
