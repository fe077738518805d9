"""A disk that is full ends every command with one sentence, whichever library met it."""

import errno
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from full_disk import files_of_at_most
from safetensors.numpy import save_file

from pipelines.full_disk import is_full_disk

MOST_BYTES = 3000
SMALL = ("--users", "50", "--items", "40", "--events", "3000", "--days", "4")


def test_a_command_ends_with_one_sentence(tmp_path: Path) -> None:
    command = ("-c", f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({MOST_BYTES},) * 2); "
               "from pipelines.cli import main; sys.argv[0] = 'recsys'; main()")  # fmt: skip
    ended = subprocess.run(
        [sys.executable, *command, "simulate", "--out", str(tmp_path / "raw"), *SMALL],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr.strip().splitlines()[-1].endswith("make room, and run it again")


def test_what_libraries_say_of_it_is_known(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="os error") as of_safetensors, files_of_at_most(MOST_BYTES):
        save_file({"a": np.zeros(MOST_BYTES)}, tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="large") as of_python, files_of_at_most(MOST_BYTES):
        (tmp_path / "b").write_bytes(bytes(2 * MOST_BYTES))
    assert is_full_disk(of_safetensors.value)
    assert is_full_disk(of_python.value)


def test_what_it_came_from_counts_and_nothing_else(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as base:
        base.execute("pragma max_page_count = 2")
        base.execute("create table a (b)")
        with pytest.raises(sqlite3.OperationalError) as of_sqlite:
            base.executemany("insert into a values (?)", [("x" * 1000,)] * 100)
    wrapped = RuntimeError("the store failed")
    wrapped.__cause__ = of_sqlite.value
    assert is_full_disk(wrapped)
    assert not is_full_disk(OSError(errno.EACCES, "Permission denied"))
    assert not is_full_disk(RuntimeError("the store failed"))
