"""A difference is told by what the datasets say, not by how their files are laid out."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dataset_files import Event, write_dataset_files
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data import diff as diff_module
from recsys.data.diff import diff, explain
from recsys.errors import InputError

DAY = 24 * 3600 * 1000
EVENTS: list[Event] = [
    ("a", "x", 1 * DAY, 0), ("a", "y", 2 * DAY, 0), ("a", "x", 3 * DAY, 1), ("b", "x", 1 * DAY, 0), ("b", "z", 4 * DAY, 2),
]  # fmt: skip
EXAMPLES = pl.DataFrame(
    [("a", "x", DAY, 0, 0, 1.0, "web"), ("a", "y", DAY, 0, 1, 0.0, None), ("b", "z", 4 * DAY, 2, 1, float("nan"), "app")],
    ["user_id", "item_id", "time_ms", "split", "position", "label_click", "context_device"], orient="row",
)  # fmt: skip
PARTS: dict[str, Any] = {"users": {"age": {"a": "30", "b": "40"}}, "items": {"genre": {"x": ["r", "s"], "y": ["s"]}}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_dataset_files(tmp_path / "base", [EVENTS], examples=[EXAMPLES], **PARTS)


def test_the_same_files(base: Path) -> None:
    found = diff(base, base)
    assert json.loads(json.dumps(found)) == found
    assert explain(found) == "identical files"


def test_another_layout_and_numbering(base: Path, tmp_path: Path) -> None:
    segments = [[e for e in EVENTS if e[2] < 3 * DAY], [e for e in EVENTS if e[2] >= 3 * DAY]]
    other = write_dataset_files(
        tmp_path / "other", segments, examples=[EXAMPLES[2:], EXAMPLES[:2]], backwards=True, **PARTS
    )  # fmt: skip
    found = diff(base, other)
    assert not found["same_files"]
    assert explain(found) == "identical content, other file layout"


def test_config_inputs_and_code(base: Path, tmp_path: Path) -> None:
    old = write_dataset_files(
        tmp_path / "old", [EVENTS], config={"events": {"ties": "file_order", "x": 1}, "split": {}},
        inputs={"a.csv": "1", "b.csv": "2"}, code="one",
    )  # fmt: skip
    new = write_dataset_files(
        tmp_path / "new", [EVENTS], config={"events": {"ties": "simultaneous", "x": 1}},
        inputs={"b.csv": "3", "c.csv": "4"}, code="two",
    )  # fmt: skip
    lines = explain(diff(old, new)).splitlines()
    assert lines[1:] == [
        "config events.ties: 'file_order' -> 'simultaneous'", "config split: {} -> None",
        "input a.csv: removed", "input b.csv: changed", "input c.csv: added", "code: one -> two",
    ]  # fmt: skip


def test_ids_events_and_splits(base: Path, tmp_path: Path) -> None:
    """b's last event is replaced by one of a new user, and a's last one moves to the test split."""
    events = [*EVENTS[:2], ("a", "x", 3 * DAY, 2), EVENTS[3], ("c", "x", 5 * DAY, 2)]
    parts = PARTS | {"users": {"age": {"a": "31", "b": "40"}, "sex": {"a": "f"}}}
    found = diff(base, write_dataset_files(tmp_path / "new", [events], examples=[EXAMPLES[:2]], **parts))
    assert not found["same_content"]
    assert found["ids"]["users"] == {"added": {"count": 1, "examples": ["c"]}, "removed": {"count": 0, "examples": []}}
    assert found["ids"]["items"]["removed"] == {"count": 1, "examples": ["z"]}
    assert found["parts"]["timeline"]["rows"] == {"before": 5, "after": 5, "added": 1, "removed": 1}
    assert found["parts"]["timeline"]["changed"] == {"split": 1}
    assert found["parts"]["examples"]["rows"]["removed"] == 1
    assert found["parts"]["users"]["changed"] == {"feature_age": 1}
    lines = explain(found).splitlines()
    assert "users: 1 added (c)" in lines
    assert "events: 1 added, 1 removed (5 -> 5)" in lines
    assert "events: the split differs in 1 common ones" in lines
    assert "users column feature_sex: added" in lines
    assert "split sizes: train 3 -> 3, valid 1 -> 0, test 1 -> 2" in lines


def test_values_of_examples_and_features(base: Path, tmp_path: Path) -> None:
    examples = EXAMPLES.with_columns(
        label_click=pl.Series([1.0, 1.0, 0.0]), context_device=pl.Series(["web", "web", "app"]), label_buy=pl.lit(1.0)
    ).drop("position")
    parts = PARTS | {"items": {"genre": {"x": ["s", "r"], "y": ["r"], "z": ["r"]}}}
    found = diff(base, write_dataset_files(tmp_path / "new", [EVENTS], examples=[examples], **parts))
    assert found["parts"]["timeline"]["same"]
    assert found["parts"]["examples"]["changed"] == {"label_click": 2, "context_device": 1}
    assert found["parts"]["examples"]["columns"] == {"added": ["label_buy"], "removed": ["position"]}
    assert found["parts"]["items"]["changed"] == {"feature_genre": 2}  # the order in a list says nothing


def test_order_in_a_timeline(tmp_path: Path) -> None:
    tied = [("a", "x", DAY, 0), ("a", "y", DAY, 0)]
    one, two = (write_dataset_files(tmp_path / str(n), [tied[::step]]) for n, step in enumerate((1, -1)))
    assert diff(one, two)["parts"]["timeline"]["changed"] == {"rank": 2}


events = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(1, 3)), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(events, events, st.integers(1, 5))
def test_events_are_compared_as_multisets(tmp_path_factory: Any, old: list[Any], new: list[Any], rows_at_once: int) -> None:
    folder = tmp_path_factory.mktemp("pair")
    a, b = (
        write_dataset_files(folder / name, [[(*event, 0) for event in sorted(side)]], backwards=name == "b")
        for name, side in (("a", old), ("b", new))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diff_module, "ROWS_AT_ONCE", rows_at_once)
        rows = diff(a, b)["parts"]["timeline"]["rows"]
    added, removed = (
        sum(max(0, these.count(event) - others.count(event)) for event in set(these))
        for these, others in ((new, old), (old, new))
    )
    assert rows == {"before": len(old), "after": len(new), "added": added, "removed": removed}


def test_a_folder_without_a_dataset(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no dataset"):
        diff(base, tmp_path / "nowhere")
