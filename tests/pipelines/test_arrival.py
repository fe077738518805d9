"""A day that is missing, half there, twice there, of another schema or of bots alone stops before training, in one sentence."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from arriving import EVENTS, Log, day, midnight_ms, people

from pipelines.monitor.arrived import Arrived
from recsys.errors import InputError


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Four days of people, three of them accepted."""
    log = Log(tmp_path / "raw")
    log.people(0, 1, 2, 3)
    for number in range(3):
        log.arrive(number)
    return log


def fails(log: Log, *words: str, number: int = 3) -> None:
    before = json.dumps(log.known)
    with pytest.raises(InputError) as caught:
        log.arrive(number)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert json.dumps(log.known) == before


@pytest.mark.parametrize("arrives", ["by_folder", "by_file"])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz", "ndjson"])
def test_a_normal_day_passes_in_every_format_with_the_same_figures(tmp_path: Path, arrives: str, suffix: str) -> None:
    log = Log(tmp_path, suffix, {**EVENTS, "arrives": arrives})
    log.people(0, 1, 2)
    for number in range(3):
        found = log.arrive(number)
    rows = people(2)
    assert (found.rows, found.users, found.items) == (600, rows["uid"].n_unique(), rows["sku"].n_unique())
    assert (found.bad, found.outside, found.bots, found.bot_rows) == ({}, 0, {}, 0)
    assert found.columns["label click"] == {str(n): rows["click"].to_list().count(n) for n in (0, 1)}
    assert found.columns["context device"] == dict(rows["device"].value_counts(sort=True).iter_rows())
    assert list(found.units) == [f"log/{day(2)}.{suffix}" if arrives == "by_file" else f"log/day={day(2)}"]
    assert Arrived.of(json.loads(json.dumps(found.to_json()))) == found


def test_the_content_does_not_hang_on_order_or_files(log: Log) -> None:
    whole = log.arrive(3).content
    rows = people(3).sample(fraction=1, shuffle=True, seed=2)
    log.write(3, rows.head(200))
    rows.tail(400).write_parquet(log.path(3).with_name("part-1.parquet"))
    assert log.arrive(3).content == whole


def test_a_missing_day_names_the_newest(log: Log) -> None:
    fails(log, "no partition of 2026-02-05, the newest day before it is 2026-02-04: wait for it", number=4)
    fails(log, "the log begins on 2026-02-01", number=-1)
    log.events["arrives"] = "together"
    fails(log, "data.events.arrives is together, which has no days")


def test_files_by_whose_names_someone_is_still_writing(log: Log) -> None:
    for name in ("part-1.parquet.tmp", ".part-1.parquet.aB3xYz", "_temporary/0/part-1.parquet"):
        unfinished = log.path(3).parent / name
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(b"PAR1")
        fails(log, f"{unfinished} is still being written", "remove it if its writer is gone")
        unfinished.unlink()
    (log.path(3).parent / ".part-0.parquet.crc").write_bytes(b"")  # a checksum that Hadoop leaves
    (log.path(3).parent / "_SUCCESS").write_bytes(b"")
    assert log.arrive(3).rows == 600


def test_half_a_parquet_file(log: Log) -> None:
    path = log.path(3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fails(log, f"2026-02-04: {path} cannot be read", "write it again")


@pytest.mark.parametrize("suffix", ["csv", "ndjson"])
def test_half_a_text_file(tmp_path: Path, suffix: str) -> None:
    log = Log(tmp_path, suffix)
    log.people(0, 1)
    log.arrive(0)
    text = log.path(1).read_text()
    log.path(1).write_text(text[: text.rindex("phone") - 12])  # within the time of a row, past half of the file
    fails(log, str(log.path(1)), number=1)


def test_a_text_file_without_a_last_line_break_is_whole(tmp_path: Path) -> None:
    log = Log(tmp_path, "csv")
    log.people(0)
    log.path(0).write_text(log.path(0).read_text().rstrip("\n"))
    assert log.arrive(0).bad == {}


def test_a_day_without_its_marker(log: Log) -> None:
    log.daily["marker"] = "_DONE"
    fails(log, f"{log.path(3).parent / '_DONE'} is not there, the file that daily.marker waits for")
    (log.path(3).parent / "_DONE").touch()
    assert log.arrive(3).rows == 600


def test_the_marker_of_nested_folders_and_of_files(tmp_path: Path) -> None:
    log = Log(tmp_path, daily={"marker": "_DONE"})
    inner = log.path(0).parent / "country=DE" / "part-0.parquet"
    inner.parent.mkdir(parents=True)
    people(0).write_parquet(inner)
    (tmp_path / "log" / "_DONE").touch()  # of no day
    fails(log, "daily.marker", number=0)
    (inner.parents[1] / "_DONE").touch()
    assert log.arrive(0).rows == 600
    files = Log(tmp_path / "files", events={**EVENTS, "arrives": "by_file"}, daily={"marker": "_DONE"})
    files.people(0)
    fails(files, "_DONE-2026-02-01.parquet is not there", number=0)
    files.path(0).with_name("_DONE-2026-02-01.parquet").touch()
    assert files.arrive(0).rows == 600


def test_a_file_that_changed_just_now(log: Log) -> None:
    log.daily["quiet_seconds"] = 600
    fails(log, f"{log.path(3)} changed", "daily.quiet_seconds asks for 600")
    os.utime(log.path(3), (1_700_000_000, 1_700_000_000))
    assert log.arrive(3).rows == 600


def test_far_fewer_rows_or_users_than_before(log: Log) -> None:
    log.write(3, people(3, rows=150))
    fails(log, "2026-02-04 has 150 rows, 25.0% of the 600 that the 3 days", "daily.min_rows_share 0.3")
    log.write(3, people(3, users=15))
    fails(log, "users,", "daily.min_users_share 0.3: wait for the rest")
    log.daily["min_users_share"] = 0
    assert log.arrive(3).rows == 600


def test_an_empty_day(log: Log) -> None:
    log.write(3, people(3).clear())
    fails(log, "2026-02-04 has no rows: wait until it is whole")


def test_the_same_day_twice_as_files_and_under_another_date(log: Log) -> None:
    shutil.copy(log.path(1), log.path(3))
    fails(log, "2026-02-04 has the same 600 rows as 2026-02-02")
    rows = people(1).with_columns(pl.col("ts") + 2 * 86_400_000).sample(fraction=1, shuffle=True, seed=1)
    log.write(3, rows)
    fails(log, "2026-02-04 has the same 600 rows as 2026-02-02", "bring the day's own files")


def test_a_copy_of_a_day_too_old_to_be_known(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.people(*range(12))
    shutil.copy(log.path(0), log.path(11))
    fails(log, "2026-02-12 has the same 600 rows as 2026-02-01", number=11)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.drop("click"), "has no 'click' where"),
        (lambda rows: rows.with_columns(pl.col("click").cast(pl.String)), "has 'click' as String where"),
        (lambda rows: rows.rename({"uid": "visitor"}), "has no 'uid' where"),
    ],
)
def test_another_schema(log: Log, change: Any, words: str) -> None:
    log.write(3, change(people(3)))
    fails(log, "2026-02-04: ", words, "day=2026-02-03", "make the files alike")


def test_another_header_of_text(tmp_path: Path) -> None:
    log = Log(tmp_path, "csv")
    log.people(0)
    log.write(1, people(1).rename({"sku": "product"}))
    log.arrive(0)
    fails(log, "has the columns [uid, product, ts, click, device", number=1)


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    log = Log(tmp_path, "csv")
    log.people(0)
    log.write(1, people(1).with_columns(click=pl.when(pl.col("click") == 1).then(pl.lit("yes")).otherwise(pl.lit("0"))))
    log.arrive(0)
    fails(log, "rows are bad (", "more than filters.max_bad_share 0.05", number=1)


def test_rows_outside_of_the_day(log: Log) -> None:
    wrong = people(3).with_columns(ts=pl.col("ts") - pl.when(pl.int_range(pl.len()) < 200).then(86_400_000).otherwise(0))
    log.write(3, wrong)
    fails(log, "33.3% of its rows lie outside of the day (they go from 2026-02-03", "daily.max_outside_share 0.2")
    few = people(3).with_columns(ts=pl.col("ts") - pl.when(pl.int_range(pl.len()) < 60).then(86_400_000).otherwise(0))
    log.write(3, few)  # late ones
    assert log.arrive(3).outside == 60


def test_a_log_cut_by_a_local_clock(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(0, people(0).with_columns(pl.col("ts") - 9 * 3_600_000))
    fails(log, "outside of the day", "daily.utc_offset_hours", number=0)
    log.daily["utc_offset_hours"] = 9
    assert log.arrive(0).outside == 0


def crawlers(number: int, users: int, gap_ms: int, rows: int, jitter: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(number)
    place = np.tile(np.arange(rows), users)
    time = place * gap_ms + rng.random(users * rows) * jitter * gap_ms
    return pl.DataFrame({
        "uid": [f"bot{n}" for n in np.repeat(np.arange(users), rows)], "sku": [f"i{n}" for n in place % 80],
        "ts": midnight_ms(number) + time.astype(int), "click": np.zeros(users * rows, int),
        "device": ["desktop"] * (users * rows),
    })  # fmt: skip


def hammer(number: int, users: int = 40) -> pl.DataFrame:
    """Each user asks for one item at random times."""
    rows = people(number, rows=60 * users, users=users)
    return rows.with_columns(uid=pl.concat_str(pl.lit("bot"), pl.int_range(pl.len()) % users), sku=pl.lit("i1"))


@pytest.mark.parametrize(
    ("bots", "rule"),
    [
        (crawlers(3, users=4, gap_ms=20_000, rows=3000, jitter=1.0), "too many moments: 4"),
        (crawlers(3, users=40, gap_ms=60_000, rows=30), "intervals of a machine: 40"),
        (crawlers(3, users=40, gap_ms=1000, rows=150), "intervals of a machine: 40"),
        (crawlers(3, users=40, gap_ms=7000, rows=50), "intervals of a machine: 40"),  # on whole seconds, all of them
        (hammer(3), "one item only: 40"),
    ],
)
def test_a_day_of_nothing_but_bots(log: Log, bots: pl.DataFrame, rule: str) -> None:
    log.write(3, bots)
    fails(log, "2026-02-04: 100.0% of its rows are of", "users that no person can be", rule, "daily.max_bot_share 0.5")


def test_some_bots_among_people_do_not_stop_the_day(log: Log) -> None:
    log.write(3, pl.concat([people(3), crawlers(3, users=3, gap_ms=60_000, rows=30)]).sort("ts"))
    found = log.arrive(3)
    assert (found.bots, found.bot_rows) == ({"intervals of a machine": 3}, 90)


def test_switched_off_bots_pass(log: Log) -> None:
    log.write(3, crawlers(3, users=40, gap_ms=60_000, rows=30))
    log.daily["max_bot_share"] = None
    assert log.arrive(3).bot_rows == 1200


def test_a_refused_day_is_judged_again_with_the_next_until_it_is_set_aside(log: Log) -> None:
    log.write(3, hammer(3))
    log.people(4)
    fails(log, "2026-02-04: ", "no person can be")
    fails(log, "2026-02-04: ", "no person can be", "begins with _ to leave the day out", number=4)
    log.path(3).parent.rename(log.path(3).parent.with_name("_day=2026-02-04"))
    assert log.arrive(4).before == {}


def test_a_late_day_is_judged_with_the_day_after_it(log: Log) -> None:
    late = log.path(1).read_bytes()
    shutil.rmtree(log.path(1).parent)
    log.known = {}
    for number in (0, 2):
        log.arrive(number)
    log.path(1).parent.mkdir()
    log.path(1).write_bytes(late)
    assert list(log.arrive(3).before) == ["2026-02-02"]
    changed = people(1).head(100)
    log.write(1, changed)
    log.people(4)
    fails(log, "2026-02-02 has 100 rows", number=4)


def test_the_first_run_reads_the_week_before_it_without_judging(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.people(*range(10))
    log.write(4, people(4, rows=50))
    found = log.arrive(9)
    assert list(found.before) == [str(day(n)) for n in range(2, 9)]
    log.people(10)
    assert log.arrive(10).before == {}
