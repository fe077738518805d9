"""What a history says of its events, beside the raw log. Shapes: N = events of all histories of a batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys.behaviours
from recsys.behaviours import KNOWN_AT_ONCE, behaviours, known_at_once
from recsys.columns import SPLIT_NAMES
from recsys.data import Data
from recsys.data.build import build
from recsys.data.labels import LabelSpec
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.loader import ExampleLoader

Write = Callable[..., Path]
Prepare = Callable[..., Dataset]

T0 = 1_700_000_000
EVENTS = {
    "path": "log.parquet", "user": "u", "item": "i", "time": "t", "history": "kept = 1",
    "labels": {"click": "click", "buy": "buy"}, "context": {"row": "row"},  # every row is another: there are no duplicates
}  # fmt: skip
CLICK, BUY = 1, 2
LOG: list[tuple[Any, ...]] = [  # user, item, time, in the timeline, click, buy
    ("a", "x", 10, 1, 1, 0),
    ("a", "y", 11, 0, 0, 0),  # shown and passed over
    ("a", "y", 12, 0, 1, 1),  # bought without entering the timeline
    ("a", "y", 12, 1, 1, 0),  # of the same moment as the row before
    ("a", "x", 13, 1, 1, 1),  # x again
    ("a", "z", 14, 1, None, None),  # no label at all
    ("a", "x", 15, 1, 0, None),
    ("b", "z", 10, 0, 1, 1),  # a user without events
    ("c", "y", 20, 1, 0, 1),  # three events of one moment, two of them of one item
    ("c", "z", 20, 1, 1, 0),
    ("c", "y", 20, 1, 1, 0),
    ("c", "x", 21, 1, 0, 0),
]


def frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {"u": pl.String, "i": pl.String, "t": pl.Int64, "kept": pl.Int64, "click": pl.Int64, "buy": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row").with_columns(pl.col("t") + T0).with_row_index("row")


def masks(data: Dataset) -> dict[str, list[tuple[str, int]]]:
    """Of every user the item and the mask of each event."""
    mask_E, items = behaviours(data, ["click", "buy"]), data.item_ids
    pairs = [(str(items[item]), int(mask)) for item, mask in zip(data.item_E, mask_E, strict=True)]
    return {
        str(data.user_ids[u]): pairs[data.start_U[u] : data.start_U[u] + data.length_U[u]] for u in range(2, data.num_users)
    }


def test_labels_of_events_by_hand(write: Write, prepare: Prepare) -> None:
    write("log.parquet", frame(LOG))
    found = masks(prepare(EVENTS, split={"kind": "leave_one_out"}))
    assert found["a"] == [("x", CLICK), ("y", CLICK), ("x", CLICK | BUY), ("z", 0), ("x", 0)]
    assert found["b"] == []
    assert found["c"] == [("y", BUY), ("z", CLICK), ("y", CLICK), ("x", 0)]


def test_rows_of_one_moment_share_their_labels_by_hand(write: Write, prepare: Prepare) -> None:
    write("log.parquet", frame(LOG))
    found = masks(prepare({**EVENTS, "ties": "simultaneous"}, split={"kind": "leave_one_out"}))
    assert found["a"] == [("x", CLICK), ("y", CLICK | BUY), ("x", CLICK | BUY), ("z", 0), ("x", 0)]
    assert found["c"] == [("y", CLICK | BUY), ("z", CLICK), ("y", CLICK | BUY), ("x", 0)]


@pytest.mark.parametrize("ties", ["file_order", "simultaneous"])
def test_nothing_goes_over_to_the_next_user(ties: str, write: Write, prepare: Prepare) -> None:
    """Their first events have item and time of what the user before them did last, and no label."""
    rows = [
        ("a", "x", 10, 1, 1, 0),
        ("a", "y", 12, 0, 0, 1),  # after the last event
        ("b", "y", 12, 1, None, None),
        ("c", "z", 20, 1, 1, 0),
        ("d", "z", 20, 1, None, None),
        *[("e", item, 30 + n, 1, 0, 0) for n, item in enumerate("xyz")],
        ("e", "x", 40, 0, 1, 1),  # after the last event of all
    ]
    write("log.parquet", frame(rows))
    found = masks(prepare({**EVENTS, "ties": ties}, split={"kind": "leave_one_out"}))
    assert {user: [mask for _, mask in pairs] for user, pairs in found.items()} == {
        "a": [CLICK], "b": [0], "c": [CLICK], "d": [0], "e": [0, 0, 0],
    }  # fmt: skip


@pytest.mark.parametrize("ties", ["file_order", "simultaneous"])
def test_held_out_events_of_the_same_moment_tell_nothing(ties: str, write: Write, prepare: Prepare) -> None:
    """In the timeline a training event and one held out stand side by side, with the same item and time."""
    write("log/train.parquet", frame([("a", "x", 5, 1, 0, 0), ("a", "y", 9, 0, 0, 1)]))
    write("log/valid.parquet", frame([("a", "x", 5, 1, 1, 0)]))
    write("log/test.parquet", frame([("a", "z", 7, 1, 0, 0)]))
    split = {"kind": "files", "valid": "log/valid*", "test": "log/test*"}
    events = {**EVENTS, "path": "log", "ties": ties, "context": {"click": "click"}}
    assert masks(prepare(events, split=split))["a"] == [("x", 0), ("x", CLICK), ("z", 0)]


def test_order_of_tasks_is_the_order_of_bits(write: Write, prepare: Prepare) -> None:
    write("log.parquet", frame(LOG))
    data = prepare(EVENTS, split={"kind": "leave_one_out"})
    assert behaviours(data, ["buy"]).tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0]
    assert behaviours(data, ["buy", "click"]).tolist() == [2, 2, 3, 0, 0, 1, 2, 2, 0]
    assert behaviours(data, []).tolist() == [0] * 9


def test_without_examples_nothing_is_known(write: Write, prepare: Prepare) -> None:
    write("log.parquet", frame(LOG))
    data = prepare({**EVENTS, "labels": {}}, split={"kind": "leave_one_out"})
    assert behaviours(data, []).tolist() == [0] * 9


def test_more_tasks_than_bits_are_refused(write: Write, prepare: Prepare) -> None:
    write("log.parquet", frame(LOG))
    data = prepare(EVENTS, split={"kind": "leave_one_out"})
    with pytest.raises(InputError, match="64 tasks do not fit the 63 bits"):
        behaviours(data, ["click"] * 64)
    assert behaviours(data, ["buy"] * 62 + ["click"])[0] == 2**62


def test_labels_that_look_ahead_say_nothing(write: Write, prepare: Prepare) -> None:
    write("log.parquet", frame(LOG))
    labels = {
        "click": "click",
        "bought": {"kind": "within", "event": "buy = 1", "within": "3s", "where": "kept = 1"},
        "far": {"kind": "at_least", "value": "t", "threshold": T0},
    }
    data = prepare({**EVENTS, "labels": labels}, split={"kind": "leave_one_out"})
    assert known_at_once(data, ["bought", "far", "click"]) == ["far", "click"]
    alone = behaviours(data, ["click"])
    assert (behaviours(data, ["click", "bought"]) == alone).all()
    assert set(behaviours(data, ["far", "bought"]).tolist()) == {1}


def test_every_kind_of_label_is_known_at_once_or_not() -> None:
    kinds = {spec.model_fields["kind"].default: spec.causal for spec in get_args(get_args(LabelSpec)[0])}
    assert set(KNOWN_AT_ONCE) == {kind for kind, is_causal in kinds.items() if is_causal}


def reference(rows: list[tuple[Any, ...]], *, simultaneous: bool) -> dict[str, list[int]]:
    """Row by row: times in order, then the rows as they come. Splits that move events need another order."""
    found: dict[str, list[int]] = {}
    for user in sorted({row[0] for row in rows}):
        mine = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])
        found[user] = []
        for place, (_, item, time, kept, *_) in enumerate(mine):
            if not kept:
                continue
            same = [
                (n, row) for n, row in enumerate(mine) if row[1:3] == (item, time) and any(flag is not None for flag in row[4:])
            ]
            if not simultaneous:
                since = max([n + 1 for n in range(place) if mine[n][3]], default=0)  # after the event before
                same = [(n, row) for n, row in same if since <= n <= place][-1:]
            found[user].append(sum({bit for _, row in same for bit, flag in ((CLICK, row[4]), (BUY, row[5])) if flag}))
    return found


flags = st.sampled_from([None, 0, 1])
logs = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 4), st.integers(0, 3).map(lambda n: int(n > 0)),
              flags, flags),
    max_size=24,
)  # fmt: skip
WHOLE = [("d", item, 5 + n, 1, 1, n % 2) for n, item in enumerate("xyzxyz")]  # so that no part of a split is empty


def made(folder: Path, rows: list[tuple[Any, ...]], **parts: Any) -> Dataset:
    folder.mkdir()
    frame(rows).write_parquet(folder / "log.parquet")
    build(Data.model_validate(parts), folder, folder / "dataset")
    return Dataset(folder / "dataset")


@settings(max_examples=40, deadline=None)
@given(log=logs, simultaneous=st.booleans(), part=st.sampled_from([1, 3, 1 << 20]), shards=st.integers(1, 3))
def test_masks_are_those_of_a_slow_loop(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[Any, ...]], simultaneous: bool, part: int, shards: int
) -> None:
    rows = log + WHOLE
    ties = "simultaneous" if simultaneous else "file_order"
    data = made(
        tmp_path_factory.mktemp("slow") / "raw", rows, events={**EVENTS, "ties": ties}, shards=shards,
        split={"kind": "leave_one_out"},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recsys.behaviours, "PART", part)
        found = masks(data)
    assert {user: [mask for _, mask in pairs] for user, pairs in found.items()} == reference(rows, simultaneous=simultaneous)


ties_of = st.sampled_from(["file_order", "simultaneous"])


@settings(max_examples=25, deadline=None)
@given(log=logs, ties=ties_of, row=st.integers(0, 29))
def test_a_history_does_not_change_with_the_label_that_is_predicted(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[Any, ...]], ties: str, row: int
) -> None:
    rows, row = log + WHOLE, row % (len(log) + len(WHOLE))
    folder, seen = tmp_path_factory.mktemp("leak"), []
    for flag in (0, 1):
        rows[row] = (*rows[row][:4], flag, flag)
        data = made(folder / str(flag), rows, events={**EVENTS, "ties": ties}, split={"kind": "leave_one_out"})
        number = data.vocabulary("context", "row").index(str(row)) + 2
        place = np.flatnonzero(np.asarray(data.examples["context_row"]) == number)[0]
        user, position = data.examples["user"][place], data.examples["position"][place]
        seen.append(behaviours(data, ["click", "buy"])[data.start_U[user] :][:position].tolist())
    assert seen[0] == seen[1]


@settings(max_examples=25, deadline=None)
@given(log=logs, ties=ties_of, seed=st.integers(0, 99))
def test_bits_come_from_rows_that_an_event_ends_the_history_of(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[Any, ...]], ties: str, seed: int
) -> None:
    """Under a split that moves held-out events behind, no bit of an event comes from a row that sees the event."""
    split = {"kind": "random", "valid_share": 0.3, "test_share": 0.3, "seed": seed}
    data = made(tmp_path_factory.mktemp("moved") / "raw", log + WHOLE, events={**EVENTS, "ties": ties}, split=split)
    examples = pl.DataFrame({name: np.asarray(column) for name, column in data.examples.items()})
    mask_E = behaviours(data, ["click", "buy"])
    for user in range(2, data.num_users):
        for place in range(data.length_U[user]):
            event = data.start_U[user] + place
            same = examples.filter(
                (pl.col("position") <= place), user=user, item=int(data.item_E[event]), time_ms=int(data.time_ms_E[event])
            )
            for bit, task in ((CLICK, "click"), (BUY, "buy")):
                assert not mask_E[event] & bit or (same[f"label_{task}"] == 1).any()


@pytest.mark.parametrize("max_history", [1, 2, 9])
def test_a_batch_says_what_was_done_with_each_event_of_its_histories(max_history: int, write: Write, prepare: Prepare) -> None:
    write("log.parquet", frame(LOG))
    data = prepare(EVENTS, split={"kind": "leave_one_out"})
    mask_E = behaviours(data, ["click", "buy"])
    for split in range(len(SPLIT_NAMES)):
        loader = ExampleLoader(
            data, tasks=["click", "buy"], split=split, max_history=max_history, batch_size=3, seed=0, behaviours=True
        )
        whole = loader.batch(loader.row_X)
        parts = list(loader.in_order())
        assert [v for b in parts for v in b.behaviour_N.tolist()] == whole.behaviour_N.tolist()
        for batch in parts:
            history = batch.ids["history"]
            assert batch.behaviour_N.dtype == history.value_N.dtype
            assert len(batch.behaviour_N) == len(history.value_N)
            assert batch.to(history.value_N.device).behaviour_N.tolist() == batch.behaviour_N.tolist()
        start = 0
        for row, length in zip(loader.row_X, whole.ids["history"].length_B.tolist(), strict=True):
            end = data.start_U[data.examples["user"][[row]][0]] + data.examples["position"][[row]][0]
            assert whole.behaviour_N[start : start + length].tolist() == mask_E[end - length : end].tolist()
            start += length


def test_a_batch_has_no_behaviours_unless_asked(write: Write, prepare: Prepare) -> None:
    write("log.parquet", frame(LOG))
    data = prepare(EVENTS, split={"kind": "leave_one_out"})
    loader = ExampleLoader(data, tasks=["click"], split=0, max_history=3, batch_size=2, seed=0)
    assert all(len(batch.behaviour_N) == 0 for batch in loader.in_order())


def test_an_append_leaves_the_masks_of_a_build(raw: Path, tmp_path: Path) -> None:
    rows = [(user, item, 86_400 * day + n, n % 3 < 2, (n + day) % 2, n % 2)
            for day in range(4) for n, (user, item) in enumerate(["ax", "ay", "bx", "bz", "by", "az"])]  # fmt: skip
    config = Data.model_validate({"events": {**EVENTS, "path": "log", "arrives": "by_file", "ties": "simultaneous"}})
    (raw / "log").mkdir()
    for day in range(4):
        frame([(*row[:3], int(row[3]), *row[4:]) for row in rows if row[2] // 86_400 == day]).write_parquet(
            raw / "log" / f"{day}.parquet"
        )
        if day > 1:
            build(config, raw, tmp_path / "grown")
    build(config, raw, tmp_path / "anew")
    grown, anew = Dataset(tmp_path / "grown"), Dataset(tmp_path / "anew")
    assert grown.manifest["segments"]["timeline"] == ["000", "001"]
    assert behaviours(grown, ["click", "buy"]).tolist() == behaviours(anew, ["click", "buy"]).tolist()
    assert len(set(behaviours(anew, ["click", "buy"]).tolist())) > 1
