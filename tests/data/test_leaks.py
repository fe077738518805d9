"""The leak check on datasets whose leaks are known: one worked out by hand, any other against the definitions."""

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.artefact import write_artefact
from recsys.data.leaks import leaks, sentences
from recsys.errors import InputError

Event = tuple[int, int, int, int]  # user, item, time, split
SPLITS = ("train", "valid", "test")


def write_dataset(
    folder: Path, kind: str, timelines: list[list[Event]], examples: list[tuple[list[Event], dict[str, list[float]]]]
) -> Path:
    """A dataset from segments of timelines (a user's events in their order) and segments of examples with labels."""
    users = 1 + max((event[0] for segment in timelines for event in segment), default=1)
    counts = [
        [sum(e[0] == u and e[3] == split for part in timelines for e in part) for u in range(users)] for split in range(3)
    ]
    length = [sum(of) for of in zip(*counts, strict=True)]
    start = [sum(length[:user]) for user in range(users)]
    lengths = {"start": start, "length": length, "train_length": counts[0], "valid_length": counts[1]}
    with write_artefact(
        folder, "dataset", config={"split": {"kind": kind}}, has_time=True,
        segments={"timeline": numbered(timelines), "examples": numbered(examples)},
    ) as (scratch, _):  # fmt: skip
        for name, segment in zip(numbered(timelines), timelines, strict=True):
            write(scratch / "timeline" / f"{name}.arrow", columns(sorted(segment, key=lambda event: event[0])).drop("split"))
        for name, (rows, labels) in zip(numbered(examples), examples, strict=True):
            frame = columns(rows).with_columns(pl.Series(f"label_{task}", v, dtype=pl.Float32) for task, v in labels.items())
            write(scratch / "examples" / f"{name}.arrow", frame.drop("split"))
            write(scratch / "examples" / f"{name}.split.arrow", frame.select("split"))
        write(scratch / "users.arrow", pl.DataFrame({"user_id": [None, None, *(f"u{n}" for n in range(2, users))]} | lengths))
        write(scratch / "items.arrow", pl.DataFrame({"item_id": [None, None, *(f"i{n}" for n in range(2, 12))]}))
    return folder


def numbered(parts: list[Any]) -> list[str]:
    return [f"{number:03d}" for number in range(len(parts))]


def columns(rows: list[Event]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32, "time_ms": pl.Int64, "split": pl.Int8}
    return pl.DataFrame(rows, schema=schema, orient="row")


def write(path: Path, frame: pl.DataFrame) -> None:
    path.parent.mkdir(exist_ok=True)
    frame.write_ipc(path, compression="uncompressed", compat_level=pl.CompatLevel.oldest())


def seen(part: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {place: (found["pairs"], found["events"]) for place, found in part["seen"].items()}


def test_leaks_are_counted_and_named(tmp_path: Path) -> None:
    # User 2 reads item 5 again in the test, twice; user 3 is tested on an item that a training impression showed and sold.
    first = [(2, 5, 10, 0), (2, 6, 20, 0), (2, 6, 60, 1), (3, 7, 30, 0)]
    second = [(2, 5, 70, 2), (2, 5, 80, 2), (2, 9, 90, 2), (3, 8, 40, 1), (3, 9, 50, 2)]
    shown = [(3, 9, 5, 0), (3, 8, 6, 0), (2, 9, 90, 2), (3, 7, 55, 0)]
    labels = {"buy": [1, 0, 1, 1], "like": [float("nan"), 1, 1, float("nan")]}
    found = leaks(write_dataset(tmp_path / "d", "time", [first, second], [(shown, labels), ([], {"buy": [], "like": []})]))
    valid, test = found["held_out"]["valid"], found["held_out"]["test"]
    assert (valid["events"], test["events"]) == (2, 4)
    assert seen(valid) == {"timeline": (1, 1), "example": (1, 1), "label_buy": (0, 0), "label_like": (1, 1), "earlier": (1, 1)}
    assert seen(test) == {"timeline": (1, 2), "example": (1, 1), "label_buy": (1, 1), "label_like": (0, 0), "earlier": (1, 2)}
    assert test["seen"]["timeline"] == {"pairs": 1, "events": 2, "share": 0.5, "examples": [["u2", "i5"]]}
    assert test["seen"]["label_buy"]["examples"] == [["u3", "i9"]]
    # The first held-out event is at 40: one training example, at 55, is later. The newest training event is user 3's, at 30.
    assert found["train_after_held_out"] == {"timeline": {"count": 0, "share": 0}, "example": {"count": 1, "share": 1 / 3}}
    assert found["test_before_others_train"] == {"count": 0, "share": 0}
    assert json.loads(json.dumps(found)) == found
    assert sentences(found) == [
        "50.0% of 2 valid events have their user and item in the training timeline too (user u2, item i6)",
        "50.0% of 2 valid events have their user and item among the training examples too (user u3, item i8)",
        "50.0% of 2 valid events have their user and item among the training examples with label_like above 0 too "
        "(user u3, item i8)",
        "50.0% of 4 test events have their user and item in the training timeline too (user u2, item i5)",
        "25.0% of 4 test events have their user and item among the training examples too (user u3, item i9)",
        "25.0% of 4 test events have their user and item among the training examples with label_buy above 0 too "
        "(user u3, item i9)",
        "1 training examples (33.3%) are no earlier than the first held-out event",
    ]


def test_leave_one_out_shows_the_future_of_others(tmp_path: Path) -> None:
    old = [(2, 5, 1, 0), (2, 6, 2, 1), (2, 7, 3, 2)]
    new = [(3, 5, 11, 0), (3, 6, 12, 1), (3, 7, 13, 2)]
    found = leaks(write_dataset(tmp_path / "d", "leave_one_out", [[*old, *new]], []))
    # User 2's test at 3 comes before user 3's training at 11; user 3's own training does not count for its test at 13.
    assert found["test_before_others_train"] == {"count": 1, "share": 0.5}
    assert sentences(found) == [
        "50.0% of the test events come before another user's newest training event: under split.kind leave_one_out a model "
        "sees the future; kind time prevents it"
    ]


def test_a_dataset_without_leaks_gives_no_sentence(tmp_path: Path) -> None:
    clean = [(2, 5, 1, 0), (2, 6, 12, 1), (2, 7, 23, 2), (3, 5, 2, 0), (3, 6, 13, 1), (3, 7, 24, 2)]
    found = leaks(write_dataset(tmp_path / "d", "time", [clean], [(clean, {"buy": [1.0] * 6})]))
    assert sentences(found) == []


def test_an_empty_dataset_has_no_leaks(tmp_path: Path) -> None:
    assert sentences(leaks(write_dataset(tmp_path / "d", "time", [[]], []))) == []


def test_examples_are_few_and_in_order_of_users(tmp_path: Path) -> None:
    rows = [(user, 5, time, split) for user in range(2, 9) for time, split in ((1, 0), (2, 1), (3, 2))]
    folder = write_dataset(tmp_path / "d", "leave_one_out", [rows], [])
    for count in (0, 2, 100):
        shown = leaks(folder, examples=count)["held_out"]["test"]["seen"]["timeline"]["examples"]
        assert shown == [[f"u{user}", "i5"] for user in range(2, 9)][:count]


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no dataset"):
        leaks(tmp_path)


SHORT = st.lists(st.tuples(st.integers(2, 4), st.integers(2, 5), st.integers(0, 9)), max_size=16)
SHOWN = st.lists(st.tuples(st.integers(2, 4), st.integers(2, 5), st.integers(0, 9), st.integers(0, 2)), max_size=8)


@settings(deadline=None, max_examples=25)
@given(events=SHORT, shown=SHOWN, part_rows=st.integers(1, 8), data=st.data())
def test_counts_are_those_of_the_definitions(events: list[Any], shown: list[Event], part_rows: int, data: Any) -> None:
    timelines: list[Event] = []
    parts: list[list[Event]] = [[], []]
    for user in range(2, 5):
        own = [event for event in events if event[0] == user]
        splits = sorted(data.draw(st.lists(st.integers(0, 2), min_size=len(own), max_size=len(own))))
        timeline = [
            (*event, split) for event, split in zip(own, splits, strict=True)
        ]  # held out at random: not in order of time
        cut = data.draw(st.integers(0, len(own)))  # the second part was appended
        timelines, parts[0], parts[1] = timelines + timeline, parts[0] + timeline[:cut], parts[1] + timeline[cut:]
    with tempfile.TemporaryDirectory() as folder:
        written = write_dataset(Path(folder) / "d", "random", parts, [(shown, {"buy": [r[2] % 2 for r in shown]})])
        found = leaks(written, rows=part_rows)
    held_out_ms = [e[2] for e in timelines if e[3] > 0]
    for split in (1, 2):
        held_out = [(place, e) for place, e in enumerate(timelines) if e[3] == split]
        places = {
            "timeline": {e[:2] for e in timelines if e[3] == 0},
            "example": {r[:2] for r in shown if r[3] == 0},
        } | ({"label_buy": {r[:2] for r in shown if r[3] == 0 and r[2] % 2}} if shown else {})
        expected = {name: [e[:2] for _, e in held_out if e[:2] in pairs] for name, pairs in places.items()}
        expected["earlier"] = [e[:2] for place, e in held_out if e[:2] in {other[:2] for other in timelines[:place]}]
        assert seen(found["held_out"][SPLITS[split]]) == {name: (len(set(p)), len(p)) for name, p in expected.items()}
    late = [e for e in timelines if e[3] == 0 and held_out_ms and e[2] >= min(held_out_ms)]
    assert found["train_after_held_out"]["timeline"]["count"] == len(late)
    early = [e for e in timelines if e[3] == 2 and any(o[0] != e[0] and o[3] == 0 and o[2] > e[2] for o in timelines)]
    assert found["test_before_others_train"]["count"] == len(early)
