"""Raw files and journals without some users: other lines keep their bytes, and what cannot be rewritten is refused."""

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from pipelines.forget.live import blank, forget_in
from pipelines.forget.raw import erase, has_rows
from recsys.data import Data
from recsys.errors import InputError
from serving.journal.journal import Journal
from serving.state.store import LiveEvent

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


def test_a_link_stays_one_and_the_file_that_it_leads_to_is_rewritten(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "lake" / "3f2a").write_bytes(gzip.compress(LINES["text"]))
    (tmp_path / "raw" / "log.csv.gz").symlink_to(tmp_path / "lake" / "3f2a")
    assert erase(config("log.csv.gz"), tmp_path / "raw", ["1"]) == {"log.csv.gz": 2}
    assert gzip.decompress((tmp_path / "lake" / "3f2a").read_bytes()) == b'u,i,t\n22,b,6\n3,"d ",8\n'
    assert (tmp_path / "raw" / "log.csv.gz").is_symlink()


KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.forget.raw import erase
from recsys.data import Data

Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # before the new file takes its place
erase(Data.model_validate({"events": {"path": "log.csv", "user": "u", "item": "i", "time": "t"}}), Path(sys.argv[1]), ["1"])
"""


def test_what_a_killed_run_was_writing_is_gone_after_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(LINES["text"])
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert len(list(tmp_path.iterdir())) == 2
    assert erase(config("log.csv"), tmp_path, ["1"]) == {"log.csv": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_text_whose_rows_are_not_lines_is_refused_and_kept(tmp_path: Path) -> None:
    text = b'u,i,t\n1,"a\nb",5\n2,c,6\n'
    (tmp_path / "log.csv").write_bytes(text)
    with pytest.raises(InputError, match="rows that are not one line each"):
        erase(config("log.csv"), tmp_path, ["1"])
    assert (tmp_path / "log.csv").read_bytes() == text


def test_blank_lines_stay_and_do_not_hide_a_row_of_two_lines(tmp_path: Path) -> None:
    """A blank line of text is a row without values; one of NDJSON is none."""
    (tmp_path / "log.csv").write_bytes(b"u,i,t\n\n1,b,6\n2,c,7\n\n")
    (tmp_path / "log.ndjson").write_bytes(b"\n" + LINES["ndjson"])
    assert erase(config("log.csv"), tmp_path, ["1"]) == {"log.csv": 1}
    assert erase(config("log.ndjson"), tmp_path, ["1"]) == {"log.ndjson": 1}
    assert (tmp_path / "log.csv").read_bytes() == b"u,i,t\n\n2,c,7\n\n"
    assert pl.read_ndjson(tmp_path / "log.ndjson")["u"].to_list() == ["22"]
    text = b'u,i,t\n\n1,b,6\n2,"a\nb",5\n'
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


def test_a_journal_that_is_the_raw_log_keeps_its_files_and_whom_to_forget(tmp_path: Path) -> None:
    """A server may be appending to them, marks by offset lead into them, and a state that is made anew reads the latter."""
    journal = Journal(tmp_path / "journal")
    for user in ("u1", "u2"):
        journal.events([(user, LiveEvent("e", "a", "click", 5, None, 5))], 5)
    journal.forgotten("u1", 6)
    before = {path: (path.stat().st_ino, path.stat().st_size) for path in tmp_path.glob("journal/events/*/*")}
    data = {"path": "events", "user": "user_id", "item": "item_id", "time": "time_ms", "time_unit": "ms"}
    assert sum(erase(Data.model_validate({"events": data}), tmp_path / "journal", ["u1"]).values()) == 1
    journal.events([("u3", LiveEvent("e", "a", "click", 7, None, 7))], 7)
    journal.close()
    told, posted = sorted(before, key=lambda path: path.name.split(".")[-2])
    assert told.read_bytes().count(b'"u1"') == 1
    assert pl.read_ndjson(posted)["user_id"].to_list() == ["u2", "u3"]
    assert {path: path.stat().st_ino for path in before} == {path: number for path, (number, _) in before.items()}


def test_a_user_who_came_back_is_named_again(tmp_path: Path) -> None:
    """A state that is told by the journal alone, such as that of a server that runs, would keep them else."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "id").write_text("j")
    forget_in(tmp_path, ["u1"])
    later_ms = int(time.time() * 1000) + 1
    time.sleep(0.01)
    forget_in(tmp_path, ["u1"], since_ms=later_ms)
    forget_in(tmp_path, ["u1"], since_ms=later_ms)  # the same run, which was killed
    marks = list(tmp_path.glob("journal/events/*/*.forgotten.ndjson"))
    assert sum(path.read_bytes().count(b'"u1"') for path in marks) == 2


def test_a_folder_that_is_no_servers_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a journal nor a state"):
        forget_in(tmp_path, ["u1"])
