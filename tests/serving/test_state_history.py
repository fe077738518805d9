"""The history that an answer reads is the one that `recsys prepare` would make of the same events."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import polars as pl
import pyarrow as pa
import pytest
from onnx import parser

from recsys.behaviours import behaviours, tasks_shown
from recsys.columns import UNKNOWN_ID
from recsys.data import Data
from recsys.data.build import build
from recsys.dataset import Dataset
from recsys.serving_config import ServingConfig
from serving.bundle.bundle import Bundle, IdIndex
from serving.state.history import history
from serving.state.store import Live, LiveEvent

T0 = 1_700_000_000_000
TASKS = ["click", "like"]
READS_BEHAVIOURS = """
<ir_version: 10, opset_import: ["": 20]>
ranking (int64[B, L] behaviour) => (int64[B, L] probability) { probability = Identity(behaviour) }
"""
AT_ONCE = {"history": "event <> 'impression'", "labels": {"click": "event = 'click'", "like": "event = 'like'"}}
LATER = {
    "history": "event = 'click'",
    "labels": {
        task: {"kind": "within", "event": f"event = '{task}'", "within": "9ms", "where": "event = 'impression'"}
        for task in TASKS
    },
}
CLICKS = {**AT_ONCE, "history": "event = 'click'"}  # a like is a row of its own, which is no entry
Row = tuple[str, str, int, str]  # user, item, time, kind


def prepared(rows: list[Row], folder: Path, events: dict[str, Any]) -> Dataset:
    schema = {"uid": pl.String, "item": pl.String, "ts": pl.Int64, "event": pl.String}
    return _prepared(pl.DataFrame(rows, schema, orient="row"), folder, events)


def _prepared(frame: pl.DataFrame, folder: Path, events: dict[str, Any]) -> Dataset:
    folder.mkdir()
    frame.write_parquet(folder / "log.parquet")
    source = {"path": "log.parquet", "user": "uid", "item": "item", "time": "ts", "time_unit": "ms", **events}
    data = Data.model_validate({"events": source, "split": {"kind": "time", "valid_share": 0.1, "test_share": 0.1}})
    build(data, folder, folder / "dataset")
    return Dataset(folder / "dataset")


@pytest.fixture
def bundle_of(bundle_folder: Path) -> Callable[..., Bundle]:
    """A bundle with the timelines and behaviours of a dataset; the tasks that it knew at once are the dataset's."""
    tiny = Bundle.load(bundle_folder)
    graph = ort.InferenceSession(parser.parse_model(READS_BEHAVIOURS).SerializeToString())

    def make(data: Dataset, begins: tuple[str, ...] = ()) -> Bundle:
        users = pa.table({"user_id": data.user_ids, "start": data.start_U, "length": data.length_U})
        items = pa.table({"item_id": data.item_ids})
        mask_E = behaviours(data, TASKS)
        timeline = {"item": data.item_E, "time_ms": data.time_ms_E, "behaviour": mask_E}
        shown = tuple(tasks_shown(mask_E, TASKS))
        return replace(
            tiny, users=users, items=items, timeline=pa.table(timeline), ranking=graph,
            user_index=IdIndex(users["user_id"]), item_index=IdIndex(items["item_id"]),
            facts=tiny.facts.model_copy(update={"serving": ServingConfig(history=begins), "tasks_in_history": shown}),
        )  # fmt: skip

    return make


def entries(bundle: Bundle, user: str, live: Live) -> list[tuple[str, int, int]]:
    """Item, milliseconds since T0 and bits of each entry."""
    found = history(bundle, bundle.user_index.find(user), live)
    rows = zip(found.item_L.tolist(), (found.time_ms_L - T0).tolist(), found.behaviour_L.tolist(), strict=True)
    return [(bundle.item_id(item), time, bits) for item, time, bits in rows]


def posted(rows: list[Row], user: str) -> Live:
    """What the state has of a user after all of these rows but impressions were posted."""
    mine = [(number, row) for number, row in enumerate(rows) if row[0] == user and row[3] != "impression"]
    events = [LiveEvent(f"e{number:04}", item, kind, time) for number, (_, item, time, kind) in mine]
    return Live(tuple(sorted(events, key=lambda each: (each.time_ms, each.id))))


def log(seed: int) -> list[Row]:
    """Two users' events among six items, many in the same millisecond, some said twice."""
    rng = np.random.default_rng(seed)
    time = T0 + np.sort(rng.integers(0, 150, 300))
    kinds = rng.choice(["impression", "click", "like", "share"], 300)
    return [
        (f"u{rng.integers(2)}", f"i{rng.integers(6)}", int(when), str(kind)) for when, kind in zip(time, kinds, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("events", "begins", "bits"), [(AT_ONCE, (), {0, 1, 2}), (LATER, ("click",), {0}), (CLICKS, ("click",), {1})]
)
def test_live_events_give_what_the_next_bundle_will_have(
    bundle_of: Callable[..., Bundle], tmp_path: Path, seed: int, events: dict[str, Any], begins: tuple[str, ...], bits: set[int]
) -> None:
    """All events are posted, also those that are in the timeline of the older bundle already."""
    rows = log(seed)
    middle = T0 + 75
    old = bundle_of(prepared([row for row in rows if row[2] < middle], tmp_path / "old", events), begins)
    new = bundle_of(prepared(rows, tmp_path / "new", events), begins)
    for user in ("u0", "u1"):
        live = posted(rows, user)
        expected = entries(new, user, Live())
        assert len(expected) > 20
        assert {found for *_, found in expected} == bits
        assert entries(old, user, live) == expected
        assert entries(new, user, live) == expected  # after the journal went into the bundle nothing counts twice


def test_a_row_that_says_several_things_is_one_entry_whatever_the_order_of_its_posts(
    bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    """A log of a row for each view, with what was done: it is posted as up to three events of one millisecond."""
    rng = np.random.default_rng(4)
    flags = rng.integers(0, 2, (80, 2)).tolist()
    rows = [("u0", f"i{rng.integers(6)}", T0 + n, *flag) for n, flag in enumerate(flags)]
    labels = {"labels": {"click": "click", "like": '"like"'}}
    old, new = (
        bundle_of(_prepared_wide(some, tmp_path / name, labels), ("view",))
        for name, some in (("old", rows[:40]), ("new", rows))
    )
    expected = entries(new, "u0", Live())
    assert {bits for *_, bits in expected} == {0, 1, 2, 3}
    for _ in range(5):
        events = [
            LiveEvent(f"{rng.integers(1 << 60)}", item, kind, time)
            for _, item, time, click, like in rows
            for kind in ("view", *["click"] * click, *["like"] * like)
        ]
        live = Live(tuple(sorted(events, key=lambda each: (each.time_ms, each.id))))
        assert entries(old, "u0", live) == expected
        assert entries(new, "u0", live) == expected


def _prepared_wide(rows: list[tuple[Any, ...]], folder: Path, events: dict[str, Any]) -> Dataset:
    return _prepared(pl.DataFrame(rows, ["uid", "item", "ts", "click", "like"], orient="row"), folder, events)


@pytest.fixture
def bundle(bundle_of: Callable[..., Bundle], tmp_path: Path) -> Bundle:
    """u0 has i0, i1 and i0 again; only clicks begin entries."""
    rows: list[Row] = [("u0", "i0", T0 + 10, "click"), ("u0", "i1", T0 + 20, "click"), ("u0", "i0", T0 + 30, "click")]
    others: list[Row] = [("u1", f"i{number}", T0 + 31 + number, kind) for number, kind in enumerate(["click", "like"] * 10)]
    return bundle_of(prepared([*rows, *others], tmp_path / "one", AT_ONCE), ("click",))


def test_other_kinds_say_what_was_done_with_the_newest_entry(bundle: Bundle) -> None:
    live = (
        LiveEvent("1", "i0", "like", T0 + 40),  # of the timeline's newer entry
        LiveEvent("2", "i1", "like", T0 + 15),  # before its only entry
        LiveEvent("3", "i3", "like", T0 + 50),  # of an item that was never clicked
        LiveEvent("4", "i3", "click", T0 + 60),
        LiveEvent("5", "i3", "like", T0 + 70),
        LiveEvent("6", "i3", "share", T0 + 80),  # no task
        LiveEvent("7", "unknown", "click", T0 + 90),
    )
    before = entries(bundle, "u0", Live())
    assert before == [("i0", 10, 1), ("i1", 20, 1), ("i0", 30, 1)]
    assert entries(bundle, "u0", Live(live)) == [("i0", 10, 1), ("i1", 20, 1), ("i0", 30, 3), ("i3", 60, 3)]
    assert entries(bundle, "u0", Live()) == before  # the table did not change


def test_an_entry_that_was_posted_late_is_not_the_newest(bundle: Bundle) -> None:
    live = (LiveEvent("1", "i0", "click", T0 + 15), LiveEvent("2", "i0", "like", T0 + 40))
    assert entries(bundle, "u0", Live(live)) == [("i0", 10, 1), ("i0", 15, 1), ("i1", 20, 1), ("i0", 30, 3)]


def test_what_was_posted_is_told_also_where_no_graph_reads_it(bundle: Bundle) -> None:
    """Features count it."""
    live = Live((LiveEvent("1", "i3", "click", T0 + 50), LiveEvent("2", "i3", "like", T0 + 60)))
    other = replace(bundle, facts=bundle.facts.model_copy(update={"tasks_in_history": ("click",)}))
    for each, read in ((bundle, 3), (other, 1), (replace(bundle, ranking=None), 0)):
        found = history(each, each.user_index.find("u0"), live)
        assert (found.behaviour_L[-1], found.posted_L.tolist()) == (read, [0, 0, 0, 3])


def test_a_forgotten_user_has_what_came_after(bundle: Bundle) -> None:
    later = (LiveEvent("1", "i3", "click", T0 + 50),)
    assert entries(bundle, "u0", Live(later, forgotten_ms=T0 + 40)) == [("i3", 50, 1)]
    assert entries(bundle, "u0", Live(later, forgotten_ms=T0 + 20)) == [("i0", 30, 1), ("i3", 50, 1)]  # a newer bundle
    assert entries(bundle, "u0", Live((), forgotten_ms=T0 + 40)) == []


def test_users_and_items_that_the_bundle_does_not_have(bundle: Bundle) -> None:
    assert bundle.user_index.find("new") == UNKNOWN_ID
    assert entries(bundle, "new", Live()) == []
    found = history(bundle, UNKNOWN_ID, Live((LiveEvent("1", "i1", "click", T0), LiveEvent("2", "gone", "click", T0))))
    assert found.item_L.tolist() == [bundle.item_index.find("i1")]
    assert (found.live_L.tolist(), found.item_L.dtype, found.time_ms_L.dtype) == ([True], np.int64, np.int64)


def test_live_entries_stand_by_time_among_those_of_the_timeline(bundle: Bundle) -> None:
    live = Live((LiveEvent("1", "i5", "click", T0 + 15), LiveEvent("2", "i5", "click", T0 + 25)))
    assert [item for item, *_ in entries(bundle, "u0", live)] == ["i0", "i5", "i1", "i5", "i0"]
    found = history(bundle, bundle.user_index.find("u0"), live)
    assert found.live_L.tolist() == [False, True, False, True, False]
