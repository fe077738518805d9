"""Every mistake is one sentence that names the file, the field or the value, and leaves what was there before."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from recsys.config import load
from recsys.data import Data
from recsys.data import build as build_module
from recsys.data.build import build
from recsys.dataset import Dataset
from recsys.errors import InputError

T0 = 1_700_000_000
EVENTS: dict[str, Any] = {
    "path": "log.csv", "user": "u", "item": "i", "time": "t", "columns": {"t": "int", "click": "int"},
    "labels": {"click": "click"}, "context": {"device": "d"},
}  # fmt: skip
LOG = "u,i,t,click,d\n" + "".join(f"u{n % 3},i{n},{T0 + n},{n % 2},web\n" for n in range(12))
SPLIT = {"kind": "leave_one_out"}
CUTS = {"kind": "time", "valid_from": "2024-01-01"}
TABLE = {"path": "x.csv", "id": "k"}


@pytest.fixture
def fails(raw: Path, tmp_path: Path) -> Callable[..., None]:
    """Prepare, and expect one InputError that says all of `words`, on one line, with nothing written."""

    def fails(*words: str, events: dict[str, Any] | None = None, folder: Path = raw, **parts: Any) -> None:
        data = Data.model_validate({"events": EVENTS if events is None else events, "split": SPLIT, **parts})
        with pytest.raises(InputError) as caught:
            build(data, folder, tmp_path / "dataset")
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message, message
        assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]

    return fails


def test_the_log_itself_is_fine(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.csv", LOG)
    assert prepare(EVENTS, split=SPLIT).num_users == 5


def test_missing_folder_and_files(fails: Callable[..., None], raw: Path, write: Callable[..., Path]) -> None:
    fails("nowhere is not a folder", "--data", folder=raw / "nowhere")
    fails("log.csv does not exist", "--data")
    (raw / "log.csv").mkdir()
    fails("log.csv does not exist or holds no files")
    (raw / "log.csv").rmdir()
    write("log.csv", LOG)
    fails("users.csv does not exist", users={"path": "users.csv", "id": "u"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("log.csv cannot be read", "empty CSV")),
        ("u,i,t,click,d\n", ("log.csv has no rows",)),
        (LOG.replace(",", ";"), ("log.csv has no column", "[u;i;t;click;d]")),
        (LOG.replace("u,i,t", "u,i,u"), ("log.csv has two columns named 'u'", "rename")),
        (LOG.replace("click", "klick"), ("has no column 'click', which `columns` lists", "klick")),
    ],
)
def test_odd_files(content: str, words: tuple[str, ...], write: Callable[..., Path], fails: Callable[..., None]) -> None:
    write("log.csv", content)
    fails(*words)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("user", {"user": "nope"}),
        ("item", {"item": "nope"}),
        ("time", {"time": "nope"}),
        ("history", {"history": "nope = 1"}),
        ("labels.click", {"labels": {"click": "nope"}}),
        ("context.device", {"context": {"device": "nope"}}),
        ("propensity", {"propensity": "nope"}),
        ("slot", {"slot": "nope + 1"}),
    ],
)
def test_a_wrong_column_in_each_field(
    field: str, change: dict[str, Any], write: Callable[..., Path], fails: Callable[..., None]
) -> None:
    write("log.csv", LOG)
    fails("log.csv has no column 'nope'", f"which {field} reads", "[u, i, t, click, d]", events=EVENTS | change)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"id": "nope"}, ("items.csv has no column 'nope'", "which id reads", "[i, k]")),
        ({"id": "i", "title": "nope"}, ("items.csv has no column 'nope'", "which title reads")),
        ({"id": "i", "features": {"kind": "nope"}}, ("items.csv has no column 'nope'", "which features.kind reads")),
        ({"id": "i", "explode": "nope"}, ("items.csv has no column 'nope'",)),
        ({"id": "i", "explode": "k"}, ("items.csv", "explode = 'k' is not a column of lists")),
    ],
)
def test_a_wrong_column_in_each_field_of_a_table(
    table: dict[str, Any], words: tuple[str, ...], write: Callable[..., Path], fails: Callable[..., None]
) -> None:
    write("log.csv", LOG)
    write("items.csv", "i,k\ni1,x\n")
    fails(*words, items={"path": "items.csv", **table})


@pytest.mark.parametrize(
    ("items", "change", "words"),
    [
        ([[1, 2]], {}, ("'i' gives List(Int64), where one text or number is needed", "`explode` makes each element")),
        ([[[1], [2]]], {"explode": "i"}, ("'i' gives List(Int64), where one text or number is needed",)),
        ([[{"id": 1}]], {"explode": "i"}, ("'i' gives Struct", "one text or number is needed")),
        (["1 2"], {"explode": "i"}, ("log.parquet: explode = 'i' is not a column of lists but String: leave it out",)),
        ([[1, 2]], {"explode": "u"}, ("log.parquet: explode = 'u' is not a column of lists",)),
        ([[1, 2]], {"explode": "nope"}, ("log.parquet has no column 'nope'",)),
        ([[], []], {"explode": "i"}, ("log.parquet has no rows",)),
        ([None, None], {"explode": "i"}, ("log.parquet", "not a column of lists but Null")),
    ],
)
def test_lists_that_are_none(
    items: list[Any], change: dict[str, Any], words: tuple[str, ...], write: Callable[..., Path], fails: Callable[..., None]
) -> None:
    write("log.parquet", pl.DataFrame({"u": ["a"] * len(items), "i": items}))
    fails(*words, events={"path": "log.parquet", "user": "u", "item": "i", **change})


def test_a_table_without_rows_or_with_bad_ones(write: Callable[..., Path], fails: Callable[..., None]) -> None:
    write("log.csv", LOG)
    write("items.csv", "i,k\n")
    fails("items.csv has no rows", items={"path": "items.csv", "id": "i"})
    write("items.csv", "i,k\n,x\ni1,y\n")
    fails(
        "items.csv: 50.0% of 2 rows are bad (id is empty: 1)", "filters.max_bad_share", items={"path": "items.csv", "id": "i"}
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": {"click": "d >= 4"}}, ("labels.click = 'd >= 4' does not fit the data", "declares them")),
        ({"labels": {"click": "click > AVG(click)"}}, ("labels.click", "reads other rows than its own")),
        ({"context": {"device": "LAG(d) OVER (ORDER BY t)"}}, ("context.device", "reads other rows than its own")),
        ({"history": "d"}, ("history = 'd' gives String, not a truth value", "click = 1")),
        ({"history": "click = 7"}, ("no good row satisfies history = 'click = 7'",)),
        ({"labels": {"click": "NULLIF(click, click)"}}, ("labels.click = 'NULLIF(click, click)' is null in every row",)),
        ({"time_unit": "iso"}, ("time = 't' gives Int64", "time_unit iso")),
        ({"time_unit": "ms"}, ("100.0% of 12 rows are bad", "before 1971 or after 2100: is time_unit right?: 12")),
        ({"time": "t * 1000"}, ("100.0% of 12 rows are bad", "is time_unit right?: 12")),
        ({"time": "click = 1"}, ("time = 'click = 1' gives Boolean, not a moment",)),
        ({"labels": {"click": "click + 1"}}, ("50.0% of 12 rows are bad (label_click is not 0, 1 or null: 6)",)),
        ({"labels": {"click": "d"}}, ("label_click is not a number: 12",)),
        ({"columns": {"click": "int", "d": "float"}}, ("d is not a number: 12",)),
        ({"header": False}, ("log.csv has no column 'u', which user reads", "[t, click]")),
        ({"header": False, "columns": {}}, ("log.csv: with `header: false` list `columns`",)),
        ({"separator": "::"}, ("log.csv: with the separator '::' set `header: false`",)),
    ],
)
def test_fields_that_do_not_fit_the_data(
    change: dict[str, Any], words: tuple[str, ...], write: Callable[..., Path], fails: Callable[..., None]
) -> None:
    write("log.csv", LOG)
    fails(*words, events=EVENTS | change)


def test_the_top_reasons_are_told_when_too_many_rows_are_bad(write: Callable[..., Path], fails: Callable[..., None]) -> None:
    write("log.csv", LOG + f",x,{T0},1,web\n,y,{T0},1,web\nu1,,{T0},1,web\n")
    fails("log.csv: 20.0% of 15 rows are bad (user id is empty: 2; item id is empty: 1)", "filters.max_bad_share 0.05")


def test_counts_and_splits_that_leave_nothing(write: Callable[..., Path], fails: Callable[..., None]) -> None:
    write("log.csv", LOG)
    fails("filters.min_user_events 99", "drop 100% of the rows", filters={"min_user_events": 99})
    fails("min_item_events 2", "lower them", filters={"min_item_events": 2, "max_drop_share": 1})
    late = {"kind": "time", "valid_from": "2030-01-01", "test_from": "2031-01-01"}
    fails("split.kind time leaves no timeline event to valid and test", "12 timeline events of 3 users", split=late)
    write("log.csv", "".join(line + "\n" for line in LOG.splitlines()[:3]))
    fails("split.kind leave_one_out leaves no timeline event to valid and test")
    write("log.csv", re.sub(rf"{T0 // 100}..", str(T0), LOG))
    fails("split.kind time finds no two distinct moments", split={"kind": "time"})


def test_one_user_is_enough(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.csv", re.sub(r"\nu\d", "\nu1", LOG))
    for split in (SPLIT, {"kind": "time"}):
        assert prepare(EVENTS, split=split).user_ids == [None, None, "u1"]


FRAME = pl.DataFrame({"u": ["a"] * 2000, "i": list(range(2000)), "t": [T0 + n for n in range(2000)]})
PARQUET = {"path": "log", "user": "u", "item": "i", "time": "t"}


def test_parts_that_are_damaged_or_differ_are_named(write: Callable[..., Path], fails: Callable[..., None], raw: Path) -> None:
    write("log/part-0.parquet", FRAME)
    second = write("log/part-1.parquet", FRAME)
    whole = second.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"PAR1" + bytes(len(whole) - 8) + b"PAR1"):
        second.write_bytes(damaged)
        fails("part-1.parquet cannot be read", "write it again", events=PARQUET)
    second.write_bytes(whole[:4] + bytes(300) + whole[304:])
    fails("log", "cannot be read", events=PARQUET)
    write("log/part-1.parquet", FRAME.drop("i"))
    fails("part-1.parquet has no 'i' where", "part-0.parquet has Int64", events=PARQUET)
    write("log/part-1.parquet", FRAME.with_columns(pl.col("i").cast(pl.String)))
    fails("part-1.parquet has 'i' as String where", "part-0.parquet has Int64", events=PARQUET)
    second.unlink()
    write("log/part-1.csv", "u,i,t\n")
    fails("part-1.csv has another format than", "narrow `path`", events=PARQUET)
    write("log/README", "hello")
    fails("README has the unknown suffix ''", ".parquet", events=PARQUET)


def test_text_parts_that_differ_and_broken_json(write: Callable[..., Path], fails: Callable[..., None]) -> None:
    write("log/a.csv", LOG)
    write("log/b.csv", LOG.replace("u,i,t,click,d", "i,u,t,click,d"))
    fails("b.csv has the columns [i, u, t, click, d] where", "a.csv has [u, i, t, click, d]", events=EVENTS | {"path": "log"})
    write("log.ndjson", f'{{"u": "a", "i": "b", "t": {T0}}}\n{{"u": "a", "i": \n')
    fails("log.ndjson cannot be read", events={**PARQUET, "path": "log.ndjson"})


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_file_without_permission(write: Callable[..., Path], fails: Callable[..., None]) -> None:
    write("log.csv", LOG).chmod(0)
    fails("log.csv cannot be read")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"events": EVENTS | {"user": "user"}}, ("'user' is not a column", "double quotes")),
        ({"events": EVENTS | {"user": ""}}, ("is not a column or a Polars SQL expression",)),
        ({"events": EVENTS | {"path": "/etc/log.csv"}}, ("'/etc/log.csv' must be relative",)),
        ({"events": EVENTS | {"path": "../log.csv"}}, ("'../log.csv' must be relative",)),
        ({"events": EVENTS | {"labels": {"a b": "click"}}}, ("a b",)),
        ({"events": EVENTS | {"context": {"history": "d"}}}, ("events.context names 'history'", "every model")),
        ({"events": EVENTS, "users": TABLE | {"features": {"user": "d"}}}, ("users.features names 'user'",)),
        ({"events": EVENTS, "items": TABLE | {"features": {"item": "d"}}}, ("items.features names 'item'",)),
        (
            {"events": EVENTS, "users": TABLE | {"features": {"age": "d"}}, "items": TABLE | {"features": {"age": "d"}}},
            ("items.features names 'age', which users.features has already",),
        ),
        (
            {"events": EVENTS, "items": TABLE | {"features": {"device": "d"}}},
            ("events.context names 'device', which items.features has already",),
        ),
        ({"events": EVENTS, "users": TABLE | {"title": "d"}}, ("users.title has no use",)),
        (
            {"events": EVENTS | {"time_unit": "order"}, "split": CUTS | {"test_from": "2024-02-01"}},
            ("needs times of the calendar",),
        ),
        ({"events": EVENTS, "split": CUTS | {"test_from": "2023-12-01"}}, ("is not before",)),
        ({"events": EVENTS, "split": CUTS}, ("both valid_from and test_from",)),
        ({"events": EVENTS, "split": {"kind": "time", "valid_share": 0.6, "test_share": 0.4}}, ("nothing to train on",)),
        ({"events": EVENTS | {"time_unit": "min"}}, ("'order'",)),
        ({"events": EVENTS, "filters": {"max_bad_share": 2}}, ("less than or equal to 1",)),
    ],
)  # fmt: skip
def test_configs_are_refused_at_load(section: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    import yaml

    with pytest.raises(ValidationError):
        Data.model_validate(section)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"name": "own", "data": section}))
    with pytest.raises(InputError) as caught:
        load(path)
    for word in (str(path), *words):
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_run_leaves_the_dataset_that_was_there(
    stop: type[BaseException], write: Callable[..., Path], raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("log.csv", LOG)
    data = Data.model_validate({"events": EVENTS, "split": SPLIT})
    out = tmp_path / "dataset"
    build(data, raw, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    finish = build_module.finish

    def finish_and_stop(*parts: Any) -> None:
        finish(*parts)
        raise stop

    write("log.csv", LOG.replace("web", "app"))
    monkeypatch.setattr(build_module, "finish", finish_and_stop)
    with pytest.raises(stop):
        build(data, raw, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "raw"]
    assert Dataset(out).vocabulary("context", "device") == ["web"]


def test_a_file_that_only_looks_unchanged_is_read_when_asked_to(write: Callable[..., Path], raw: Path, tmp_path: Path) -> None:
    data, out = Data.model_validate({"events": EVENTS, "split": SPLIT}), tmp_path / "dataset"
    stat = write("log.csv", LOG).stat()
    first = build(data, raw, out)
    changed = write("log.csv", LOG.replace("web", "app"))
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert build(data, raw, out) == json.loads((out / "manifest.json").read_text())
    assert build(data, raw, out, anew=True)["inputs"] != first["inputs"]
    assert Dataset(out).vocabulary("context", "device") == ["app"]


def test_a_dataset_with_a_broken_manifest_is_built_again(write: Callable[..., Path], raw: Path, tmp_path: Path) -> None:
    write("log.csv", LOG)
    data, out = Data.model_validate({"events": EVENTS, "split": SPLIT}), tmp_path / "dataset"
    content = build(data, raw, out)["content"]
    (out / "manifest.json").write_text("{")
    again = build(data, raw, out)
    assert (again["content"], again["report"]["built"][:18]) == (content, "built from scratch")


def test_what_a_killed_run_spilled_is_cleared_away(write: Callable[..., Path], raw: Path, tmp_path: Path) -> None:
    write("log.csv", LOG)
    left = tmp_path / ".dataset.spill-abc.999999999.tmp"  # no process has that number
    (left / "ingest-000000").mkdir(parents=True)
    build(Data.model_validate({"events": EVENTS, "split": SPLIT}), raw, tmp_path / "dataset")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "raw"]


def test_a_failed_run_leaves_the_dataset_that_was_there(write: Callable[..., Path], raw: Path, tmp_path: Path) -> None:
    write("log.csv", LOG)
    data = Data.model_validate({"events": EVENTS, "split": SPLIT})
    build(data, raw, tmp_path / "dataset")
    before = (tmp_path / "dataset" / "manifest.json").read_bytes()
    write("log.csv", "u,i,t,click,d\n")
    with pytest.raises(InputError):
        build(data, raw, tmp_path / "dataset")
    assert (tmp_path / "dataset" / "manifest.json").read_bytes() == before


def test_a_dataset_that_was_touched_is_refused(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    write("log.csv", LOG)
    folder = prepare(EVENTS, split=SPLIT).folder
    (folder / "timeline" / "000.arrow").unlink()
    with pytest.raises(InputError, match=r"timeline/000\.arrow is missing .* `recsys prepare`"):
        Dataset(folder)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(InputError, match="format version 99, this recsys reads version 2"):
        Dataset(folder)
    with pytest.raises(InputError, match="holds no dataset"):
        Dataset(folder.parent)
