"""The report of a dataset small enough to count by hand, and of the same data in other files."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dataset_files import Event, write_dataset_files
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.drift import drift, psi
from recsys.data.quality import quality
from recsys.data.slices import timeline_slices

DAY = 24 * 3600 * 1000
HOUR = 3600 * 1000
MONDAY = 20_003 * DAY  # 2024-10-07
NAN = float("nan")
EVENTS: list[Event] = [  # a and b begin on Monday; c is not in training, nor are items z and q
    ("a", "x", MONDAY, 0), ("a", "y", MONDAY, 0), ("a", "x", MONDAY + DAY, 1),
    ("b", "x", MONDAY, 0), ("b", "z", MONDAY + 2 * DAY, 2), ("c", "q", MONDAY + 2 * DAY + 5 * HOUR, 2),
]  # fmt: skip
EXAMPLES = pl.DataFrame(
    [("a", "x", MONDAY, 0, 1.0, "web"), ("a", "y", MONDAY, 0, 0.0, None), ("c", "q", MONDAY + 2 * DAY, 2, NAN, "app")],
    ["user_id", "item_id", "time_ms", "split", "label_click", "context_device"], orient="row",
).with_columns(feature_age_days=pl.Series([NAN, 1.0, 2.0], dtype=pl.Float32))  # fmt: skip
PARTS: dict[str, Any] = {
    "users": {"age": {"a": "30"}}, "items": {"genre": {"x": ["r", "s"], "y": ["s"]}}, "titles": {"x": "The X"},
    "report": {"rows_read": 10, "rows_quarantined": 3, "quarantined_by_rule": {"user_id_empty": 2, "unreadable": 1},
               "rows_dropped_by_min_counts": 1, "rows_kept": 6},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset_files(tmp_path / "dataset", [EVENTS], examples=[EXAMPLES], **PARTS)


def test_rows_and_sizes(folder: Path) -> None:
    report = quality(folder)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["rows"] == {
        "read": 10, "quarantined": 3, "quarantined_by_rule": {"user_id_empty": 2, "unreadable": 1},
        "dropped": {"min_counts": {"rows": 1, "share": 0.1}}, "kept": 6,
    }  # fmt: skip
    assert (report["users"], report["items"], report["events"]) == (3, 4, 6)
    assert report["share_with_tied_time"] == pytest.approx(2 / 6)
    assert report["share_of_repeated_pairs"] == pytest.approx(1 / 6)
    assert report["top_items"][0] == {"item_id": "x", "title": "The X", "events": 3}


def test_distributions_and_time(folder: Path) -> None:
    report = quality(folder)
    users = report["events_per_user"]
    assert (users["min"], users["quantiles"]["0.5"], users["max"], users["mean"]) == (1, 2.0, 3, 2.0)
    assert users["histogram"] == [1, 2]  # one user with 1 event, two with 2 or 3
    assert report["events_per_item"]["histogram"] == [3, 1]
    time = report["time"]
    assert (time["first_ms"], time["last_ms"], time["first_day"]) == (MONDAY, MONDAY + 2 * DAY + 5 * HOUR, "2024-10-07")
    assert time["events_per_day"] == [3, 1, 2]
    assert time["events_per_weekday"] == [3, 1, 2, 0, 0, 0, 0]
    assert time["events_per_hour_of_day"][:6] == [5, 0, 0, 0, 0, 1]


def test_splits_labels_and_features(folder: Path) -> None:
    report = quality(folder)
    assert report["splits"]["train"] == {
        "events": 3, "users": 2, "items": 2, "cold_users": 0, "cold_items": 0,
        "share_of_cold_users": 0, "share_of_cold_items": 0,
    }  # fmt: skip
    assert report["splits"]["test"] == {
        "events": 2, "users": 2, "items": 2, "cold_users": 1, "cold_items": 2,
        "share_of_cold_users": 0.5, "share_of_cold_items": 1,
    }  # fmt: skip
    assert report["tasks"]["click"] == {
        "train": {"labelled": 2, "mean": 0.5}, "valid": {"labelled": 0, "mean": None}, "test": {"labelled": 0, "mean": None},
    }  # fmt: skip
    unknown = {(f["owner"], f["feature"]): f["unknown_share"] for f in report["features"]}
    assert unknown == pytest.approx(
        {("user", "age"): 2 / 3, ("item", "genre"): 0.5, ("context", "device"): 1 / 3, ("example", "age_days"): 1 / 3}
    )


def test_without_times_examples_or_events(tmp_path: Path) -> None:
    report = quality(write_dataset_files(tmp_path / "order", [EVENTS], has_time=False))
    assert (report["time"], report["tasks"], report["features"]) == (None, {}, [])
    manifest = json.loads((tmp_path / "order" / "manifest.json").read_text())
    assert quality(tmp_path / "order", manifest | {"report": PARTS["report"]})["rows"]["read"] == 10


def test_segments_and_slices_change_nothing(folder: Path, tmp_path: Path) -> None:
    """A user's events spread over two segments are one timeline; so are those of slices of one row."""
    early = [event for event in EVENTS if event[2] == MONDAY]
    late = [event for event in EVENTS if event[2] > MONDAY]
    apart = write_dataset_files(tmp_path / "apart", [early, late], examples=[EXAMPLES[1:], EXAMPLES[:1]], **PARTS)
    assert quality(apart) == quality(folder)
    manifest = json.loads((apart / "manifest.json").read_text())
    whole, single = ([*timeline_slices(apart, manifest, rows=rows)] for rows in (100, 1))
    assert (len(whole), len(single)) == (1, 3)  # a slice holds whole users
    for name in ("user", "item", "time_ms", "split"):
        assert whole[0][name].tolist() == [value for part in single for value in part[name]]
    assert whole[0]["split"].tolist() == [0, 0, 1, 0, 2, 2]


def test_psi_by_hand() -> None:
    """Shares .5, .5 against .8, .2: (.3) ln(1.6) + (-.3) ln(.4) = .3 ln 4."""
    assert psi([10, 10], [80, 20]) == pytest.approx(0.3 * 1.3862944)
    assert psi([3, 1], [6, 2]) == pytest.approx(0)


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.integers(0, 100), max_size=6)] * 2)
def test_psi_is_symmetric_and_not_negative(old: list[int], new: list[int]) -> None:
    assert psi(old, new) == pytest.approx(psi(new, old))
    assert psi(old, new) >= 0


def test_drift_names_what_moved(folder: Path, tmp_path: Path) -> None:
    before = quality(folder)
    assert {row["verdict"] for row in drift(before, before)} == {"stable"}
    all_clicked = EXAMPLES.with_columns(label_click=pl.lit(1.0, pl.Float64))
    after = quality(write_dataset_files(tmp_path / "after", [EVENTS], examples=[all_clicked], **PARTS | {"users": {}}))
    moved = {row["name"]: row for row in drift(before, after) if row["verdict"] != "stable"}
    assert set(moved) == {"mean of label click, train", "mean of label click, test", "unknown share of user feature age"}
    row = moved["mean of label click, train"]
    assert (row["before"], row["after"], row["value"], row["verdict"]) == (0.5, 1.0, 0.5, "shifted")
    assert moved["mean of label click, test"]["verdict"] == "added"
    assert moved["unknown share of user feature age"]["verdict"] == "removed"
