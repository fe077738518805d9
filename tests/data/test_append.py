"""A dataset to which days were appended is the one that a build over all days makes, bit for bit."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dataset_contents import assert_same
from growing_log import DAY, DAYS, DTYPES, EVENTS, FIXED, HOUR, T0, config, days, write_day, write_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data import Data
from recsys.data.before import Before
from recsys.data.build import build
from recsys.data.finish import Work, finish
from recsys.dataset import Dataset
from recsys.errors import InputError


@pytest.fixture
def tables(raw: Path) -> None:
    write_tables(raw)


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("split", "events"),
    [
        (FIXED, {}),
        ({"kind": "time", "valid_share": 0.2, "test_share": 0.2}, {"arrives": "by_file", "max_lateness": "2d"}),
        (
            {"kind": "time", "valid_days": 1, "test_days": 1},
            {"max_lateness": "2d", "conflicts": "first", "ties": "simultaneous"},
        ),
    ],
    ids=["dates", "shares by file", "days with lateness"],
)
def test_three_appends_equal_a_build_over_all_days(
    raw: Path, tmp_path: Path, split: dict[str, Any], events: dict[str, Any]
) -> None:
    data = config(events=EVENTS | events, split=split)
    for day, frame in enumerate(days()):
        write_day(raw, day, frame, files=2)
        if day >= DAYS - 4:
            manifest = build(data, raw, tmp_path / "grown")
    build(data, raw, tmp_path / "fresh")
    assert manifest["report"]["built"].startswith("appended 2 new files to the dataset of ")
    assert len(manifest["segments"]["timeline"]) == 3  # the first days, and three appends, one of them without history
    assert_same(tmp_path / "grown", tmp_path / "fresh")
    report = manifest["report"]
    assert report["late_rows"] > 0
    assert {"too_late", "exact_duplicate"} <= set(report["quarantined_by_rule"])


def made(data: Data, raw: Path, out: Path) -> bool:
    """False where a log is too small to be split, or has no good row."""
    try:
        build(data, raw, out)
    except InputError as error:
        if not re.search("no two distinct moments|leaves no timeline event|which leaves none|has no rows", str(error)):
            raise
        return False
    return True


HOURS = st.integers(0, 23)
ROW = st.tuples(
    st.integers(0, 5), st.integers(0, 5), HOURS, st.sampled_from([0, 0, 0, 1, 2, 3]), st.integers(0, 1), st.sampled_from("xyz")
)


@settings(max_examples=8, deadline=None)
@given(
    later=st.lists(st.lists(ROW, max_size=6), min_size=1, max_size=4), again=st.data(), share=st.booleans(),
    lateness=st.sampled_from(["1h", "1d", "2d"]), conflicts=st.sampled_from(["keep", "first", "last", "quarantine"]),
)  # fmt: skip
def test_appends_in_any_steps_equal_a_build_over_all_days(
    later: list[Any], again: Any, share: bool, lateness: str, conflicts: str
) -> None:
    columns = ["u", "i", "t", "click", "dwell", "device"]
    all_days = [[("u9", "i9", T0 + 4 * HOUR * n, 1, n * 9, "x") for n in range(6)]]
    for day, drawn in enumerate(later, 1):
        rows = [(f"u{9 - u}", f"i{9 - i}", T0 + (day - ago) * DAY + hour * HOUR, c, hour, d) for u, i, hour, ago, c, d in drawn]
        known = sorted({row for rows_of_day in all_days for row in rows_of_day})
        all_days.append(rows + again.draw(st.lists(st.sampled_from(known), max_size=3), label="rows once more"))
    dates = {"kind": "time", "valid_from": "2023-11-15T06:00:00Z", "test_from": "2023-11-15T14:00:00Z"}
    data = config(
        events=EVENTS | {"max_lateness": lateness, "conflicts": conflicts}, filters={"max_bad_share": 1},
        split={"kind": "time", "valid_share": 0.2, "test_share": 0.2} if share else dates,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        write_tables(raw)
        for day, rows in enumerate(all_days):
            write_day(raw, day, pl.DataFrame(rows, columns, orient="row", schema_overrides=DTYPES))
            if day == len(later) or again.draw(st.booleans(), label="build now"):
                grown = made(data, raw, Path(folder) / "grown")
        assert grown == made(data, raw, Path(folder) / "fresh")
        if grown:
            assert_same(Path(folder) / "grown", Path(folder) / "fresh")


SHORT = {"path": "log", "user": "u", "item": "i", "time": "t", "labels": {"click": "click"}, "arrives": "by_folder"}
COUNTS = {"seen": {"kind": "count", "by": ["item"], "event": "all", "window": "1d"}}


def short(**parts: Any) -> Data:
    split = {"kind": "time", "valid_from": "2023-11-15T06:00:00Z", "test_from": "2023-11-15T18:00:00Z"}
    filters = {"max_bad_share": 1}
    return Data.model_validate({"events": SHORT, "split": split, "features": COUNTS, "filters": filters} | parts)


def events_of(day: int, *, users: int = 4) -> pl.DataFrame:
    rows = [(f"u{n % users}", f"i{n % 3}", T0 + day * DAY + n * 2 * HOUR, n % 2) for n in range(12)]
    return pl.DataFrame(rows, ["u", "i", "t", "click"], orient="row")


@pytest.fixture
def three_days(raw: Path) -> None:
    for day in range(3):
        write_day(raw, day, events_of(day))


@pytest.fixture
def grow(raw: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Build the dataset, or append to it, and check that it equals one made from scratch."""

    def grow(data: Data | None = None) -> dict[str, Any]:
        data = data or short()
        manifest = build(data, raw, tmp_path / "dataset")
        build(data, raw, tmp_path / "fresh")
        assert_same(tmp_path / "dataset", tmp_path / "fresh")
        return manifest

    return grow


def files_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """What would change if a file were written again."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.usefixtures("three_days")
def test_without_new_files_nothing_is_touched(raw: Path, tmp_path: Path) -> None:
    first = build(short(), raw, tmp_path / "dataset")
    before = files_of(tmp_path / "dataset")
    (raw / "log" / "d=3").mkdir()  # a folder without files
    assert build(short(), raw, tmp_path / "dataset") == first
    assert files_of(tmp_path / "dataset") == before


@pytest.mark.usefixtures("three_days")
def test_an_append_links_what_it_keeps_and_writes_only_what_is_new(
    raw: Path, tmp_path: Path, grow: Callable[..., dict[str, Any]]
) -> None:
    grow()
    before = files_of(tmp_path / "dataset")
    write_day(raw, 3, events_of(3))
    manifest = grow()
    after = files_of(tmp_path / "dataset")
    assert manifest["segments"] == {"timeline": ["000", "001"], "examples": ["000", "001"]}
    kept = ["timeline/000.arrow", "examples/000.arrow", "examples/000.split.arrow"]
    assert [after[name] for name in kept] == [before[name] for name in kept]  # the same inode: a link
    assert Dataset(tmp_path / "dataset").manifest["files"].keys() == after.keys() - {"manifest.json"}


@pytest.mark.usefixtures("three_days")
def test_moved_cuts_change_the_split_and_not_the_rows(raw: Path, tmp_path: Path, grow: Callable[..., dict[str, Any]]) -> None:
    data = short(split={"kind": "time", "valid_share": 0.25, "test_share": 0.25})
    old = grow(data)
    before = files_of(tmp_path / "dataset")
    write_day(raw, 3, events_of(3))
    new = grow(data)
    after = files_of(tmp_path / "dataset")
    # 36 events every two hours: the quantiles 0.5 and 0.75 are events 18 and 27; of 48 they are 24 and 36.
    assert [(cut // 1000 - T0) // (2 * HOUR) for cut in (*old["cuts_ms"], *new["cuts_ms"])] == [18, 27, 24, 36]
    assert after["examples/000.arrow"] == before["examples/000.arrow"]
    split = pl.read_ipc(tmp_path / "dataset" / "examples" / "000.split.arrow")["split"]
    assert split.value_counts(sort=True).rows() == [(0, 24), (1, 12)]


def values_of(folder: Path) -> list[list[str | None]]:
    data = Dataset(folder)
    return [data.user_ids, data.item_ids, [*data.vocabulary("item", "k")], [*data.vocabulary("context", "hour")]]


@pytest.mark.usefixtures("three_days")
def test_vocabularies_only_grow(raw: Path, tmp_path: Path, grow: Callable[..., dict[str, Any]]) -> None:
    data = short(
        events=SHORT | {"context": {"hour": "t % 86400"}}, items={"path": "items.csv", "id": "i", "features": {"k": "k"}}
    )
    (raw / "items.csv").write_text("i,k\ni0,red\ni1,green\ni2,red\nA,blue\n")
    grow(data)
    old = values_of(tmp_path / "dataset")
    write_day(raw, 3, events_of(3).with_columns(u=pl.lit("Z"), i=pl.lit("A"), t=pl.col("t") + 1))
    grow(data)
    added = (["Z"], ["A"], ["blue"], sorted(str(n * 2 * HOUR + 1) for n in range(12)))  # sort before all others
    assert values_of(tmp_path / "dataset") == [before + new for before, new in zip(old, added, strict=True)]


@pytest.mark.usefixtures("three_days")
def test_a_table_that_changed_gives_new_values_new_codes(raw: Path, tmp_path: Path) -> None:
    data = short(items={"path": "items.csv", "id": "i", "features": {"k": "k"}})
    (raw / "items.csv").write_text("i,k\ni0,red\ni1,green\ni2,red\n")
    build(data, raw, tmp_path / "dataset")
    (raw / "items.csv").write_text("i,k\ni0,red\ni1,amber\ni2,red\n")
    write_day(raw, 3, events_of(3))
    assert build(data, raw, tmp_path / "dataset")["report"]["built"].startswith("appended")
    found = Dataset(tmp_path / "dataset")
    assert found.vocabulary("item", "k") == ["green", "red", "amber"]
    assert found.codes("k", "item").item_E.tolist() == [1, 1, 3, 4, 3]


@pytest.mark.usefixtures("three_days")
def test_days_may_be_empty_or_bring_nothing_new(raw: Path, tmp_path: Path, grow: Callable[..., dict[str, Any]]) -> None:
    first = grow()
    write_day(raw, 3, events_of(3).clear())
    manifest = grow()
    assert manifest["units"] == [f"log/d={day}" for day in range(4)]
    assert manifest["content"] == first["content"]
    write_day(raw, 4, events_of(2)[-4:])  # only rows that are there
    assert grow()["report"]["quarantined_by_rule"] == {"exact_duplicate": 4}
    write_day(raw, 5, events_of(5))
    assert grow()["segments"]["timeline"] == ["000", "001"]


def test_a_row_that_comes_again_is_found_though_its_user_was_away(raw: Path, grow: Callable[..., dict[str, Any]]) -> None:
    data = short(events=SHORT | {"max_lateness": "3d"})
    for day, users in enumerate([4, 1, 1]):
        write_day(raw, day, events_of(day, users=users))
        grow(data)
    write_day(raw, 3, pl.concat([events_of(3), events_of(0)[-1:]]))
    assert grow(data)["report"]["quarantined_by_rule"] == {"exact_duplicate": 1}


def test_the_gate_of_bad_rows_holds_for_every_day(raw: Path, tmp_path: Path) -> None:
    data = short(filters={"max_bad_share": 0.5})
    write_day(raw, 0, events_of(0))
    first = build(data, raw, tmp_path / "dataset")
    write_day(raw, 1, events_of(1).with_columns(i=pl.lit("")))
    with pytest.raises(InputError, match=r"100.0% of 12 rows are bad \(item id is empty: 12\)"):
        build(data, raw, tmp_path / "dataset")
    assert Dataset(tmp_path / "dataset").manifest["content"] == first["content"]


@pytest.mark.usefixtures("three_days")
def test_an_append_that_is_killed_leaves_the_old_dataset(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grow: Callable[..., dict[str, Any]]
) -> None:
    build(short(), raw, tmp_path / "dataset")
    before = files_of(tmp_path / "dataset")
    write_day(raw, 3, events_of(3))

    def killed(data: Data, work: Work, before: Before, folder: Path, manifest: dict[str, Any]) -> None:
        finish(data, work, before, folder, manifest)
        raise KeyboardInterrupt

    monkeypatch.setattr("recsys.data.build.finish", killed)
    with pytest.raises(KeyboardInterrupt):
        build(short(), raw, tmp_path / "dataset")
    monkeypatch.undo()
    assert files_of(tmp_path / "dataset") == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert grow()["report"]["built"].startswith("appended 1 new file to")


@pytest.mark.usefixtures("three_days")
def test_without_hard_links_files_are_copied(
    raw: Path, monkeypatch: pytest.MonkeyPatch, grow: Callable[..., dict[str, Any]]
) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError("this file system has no links")

    grow()
    write_day(raw, 3, events_of(3))
    monkeypatch.setattr("os.link", no_link)
    assert grow()["segments"]["timeline"] == ["000", "001"]


def test_an_append_after_which_no_event_validates_is_refused(raw: Path, tmp_path: Path) -> None:
    data = short(split={"kind": "time", "valid_days": 1, "test_days": 1})
    for day in range(3):
        write_day(raw, day, events_of(day))
    first = build(data, raw, tmp_path / "dataset")
    write_day(raw, 5, events_of(5))
    for anew in (False, True):  # as from scratch
        with pytest.raises(InputError, match=r"leaves no timeline event to valid: .*\(48 timeline events of 4 users"):
            build(data, raw, tmp_path / "dataset", anew=anew)
    assert Dataset(tmp_path / "dataset").manifest["content"] == first["content"]


def changed_file(raw: Path) -> None:
    events_of(7).write_parquet(raw / "log" / "d=1" / "0.parquet")


def removed_file(raw: Path) -> None:
    (raw / "log" / "d=1" / "0.parquet").unlink()


def file_in_an_old_folder(raw: Path) -> None:
    events_of(7).write_parquet(raw / "log" / "d=2" / "1.parquet")


def folder_before_others(raw: Path) -> None:
    write_day(raw, "1b", events_of(1))


WHY: list[tuple[dict[str, Any], Callable[[Path], None] | None, str]] = [
    ({}, changed_file, "files it was made from changed, or new ones sort before them"),
    ({}, removed_file, "files it was made from changed, or new ones sort before them"),
    ({}, folder_before_others, "files it was made from changed, or new ones sort before them"),
    ({}, file_in_an_old_folder, "new files lie in folders that were read before"),
    ({"filters": {"min_user_events": 2}}, None, "filters.min_user_events lets new rows change old ones"),
    ({"filters": {"min_item_events": 2}}, None, "filters.min_item_events lets new rows change old ones"),
    ({"split": {"kind": "leave_one_out"}}, None, "split.kind leave_one_out lets new rows change old ones"),
    ({"split": {"kind": "random"}}, None, "split.kind random lets new rows change old ones"),
    ({"steps": [{"kind": "bots", "max_events_per_day": 50}]}, None, "steps lets new rows change old ones"),
    ({"events": SHORT | {"conflicts": "last"}}, None, "events.conflicts last lets new rows change old ones"),
    ({"events": SHORT | {"labels": {"later": {"kind": "within", "event": "click = 1", "within": "1h"}}}, "features": {}},
     None, "labels.later lets new rows change old ones"),
    ({"events": SHORT | {"arrives": "together"}}, None, "the files changed, and events.arrives is together"),
]  # fmt: skip


@pytest.mark.usefixtures("three_days")
@pytest.mark.parametrize(("parts", "change", "why"), WHY, ids=[f"{n}" for n in range(len(WHY))])
def test_what_cannot_be_appended_is_built_anew_and_says_why(
    raw: Path, grow: Callable[..., dict[str, Any]], parts: dict[str, Any], change: Callable[[Path], None] | None, why: str
) -> None:
    data = short(**parts)
    assert grow(data)["report"]["built"] == "built from scratch: there was no dataset"
    if change:
        change(raw)
    else:
        write_day(raw, 3, events_of(3))
    manifest = grow(data)
    assert manifest["report"]["built"] == f"built from scratch: {why}"
    assert len(manifest["segments"]["timeline"]) == 1


@pytest.mark.usefixtures("three_days")
def test_another_config_is_built_anew(raw: Path, tmp_path: Path, grow: Callable[..., dict[str, Any]]) -> None:
    grow()
    assert grow(short(features={}))["report"]["built"] == "built from scratch: the `data` section changed"
    again = build(short(features={}), raw, tmp_path / "dataset", anew=True)
    assert again["report"]["built"] == "built from scratch, as asked"
    (tmp_path / "dataset" / "manifest.json").write_text("{}")
    assert grow()["report"]["built"] == "built from scratch: there was no dataset of this format"
