"""What a dataset gives away: held-out pairs that training shows, and training events from after the first held-out moment.

Reads the files by memory map, a few million rows at a time. Shapes: U = users, E = timeline events and X = examples of one
part, P = distinct (user, item) pairs that are held out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.artefact import read_manifest
from recsys.columns import (
    ITEM_ID,
    ITEMS_FILE,
    LABEL_PREFIX,
    SPLIT,
    SPLIT_NAMES,
    TEST,
    TIME_MS,
    TRAIN,
    USER,
    USER_ID,
    USERS_FILE,
    VALID,
)
from recsys.data.slices import PLACE, ROWS, example_slices, pair_key, timeline_slices
from recsys.dataset import map_file

TIMELINE, EXAMPLE = "timeline", "example"  # where a pair may be seen; label_<task>: among examples with that label above 0
BOUNDS = np.iinfo(np.int64)


def leaks(dataset: Path, *, examples: int = 5, rows: int = ROWS) -> dict[str, Any]:
    """Counts of leaks, with up to `examples` pairs each by their external ids, in order of users. Raises InputError.

    - `has_time`: whether the log has times; without them the order of different users' events says nothing.
    - `held_out`, by split: its timeline `events`, and under `seen` how many of them have their pair in the training part too:
      in the timeline, among the examples, among the examples with a label above 0; under `earlier`, before the event itself.
    - `train_after_held_out`: training events and examples no earlier than the first held-out event.
    - `test_before_others_train`: test events before the newest training event of any other user.
    """
    manifest = read_manifest(dataset, "dataset")
    held_out, first_ms, newest_ms_U = _held_out(dataset, manifest, rows)
    after, before_others = {TIMELINE: _Count(), EXAMPLE: _Count()}, _Count()
    newest_user = int(newest_ms_U.argmax())
    newest_ms, second_ms = newest_ms_U[newest_user], np.delete(newest_ms_U, newest_user).max(initial=BOUNDS.min)
    for part in timeline_slices(dataset, manifest, rows=rows):
        user_E, key_E, time_ms_E, place_E, split_E = part[USER], pair_key(part), part[TIME_MS], part[PLACE], part[SPLIT]
        is_train_E, is_test_E = split_E == TRAIN, split_E == TEST
        for pairs in held_out.values():
            pairs.see(TIMELINE, key_E[is_train_E])
            pairs.see_place(key_E, place_E)
        after[TIMELINE].add(time_ms_E[is_train_E] >= first_ms)
        before_others.add((time_ms_E < np.where(user_E == newest_user, second_ms, newest_ms))[is_test_E])
    for columns in example_slices(dataset, manifest, rows=rows):
        key_X = pair_key(columns)
        is_train_X = columns[SPLIT] == TRAIN
        labels = {name: values > 0 for name, values in columns.items() if name.startswith(LABEL_PREFIX)}
        for behaviour, is_seen_X in {EXAMPLE: is_train_X, **labels}.items():
            for pairs in held_out.values():
                pairs.see(behaviour, key_X[is_train_X & is_seen_X])
        after[EXAMPLE].add(columns[TIME_MS][is_train_X] >= first_ms)
    ids = map_file(dataset / USERS_FILE)[USER_ID], map_file(dataset / ITEMS_FILE)[ITEM_ID]
    return {
        "split": manifest["config"]["split"]["kind"],
        "has_time": manifest["has_time"],
        "held_out": {SPLIT_NAMES[split]: pairs.report(ids, examples) for split, pairs in held_out.items()},
        "train_after_held_out": {behaviour: count.report() for behaviour, count in after.items()},
        "test_before_others_train": before_others.report(),
    }


def sentences(result: dict[str, Any]) -> list[str]:
    """What `leaks` found, for people; a dataset without leaks gives none."""
    said = []
    places = {
        TIMELINE: "in the training timeline",
        EXAMPLE: "among the training examples",
        "earlier": "earlier in the timeline",
    }
    for name, part in result["held_out"].items():
        for behaviour, seen in part["seen"].items():
            is_told = behaviour == "earlier" and seen["events"] == part["seen"][TIMELINE]["events"]
            if seen["events"] and not is_told:
                where = places.get(behaviour, f"among the training examples with {behaviour} above 0")
                pairs = "; ".join(f"user {user}, item {item}" for user, item in seen["examples"])
                said.append(
                    f"{seen['share']:.1%} of {part['events']:,} {name} events have their user and item {where} too ({pairs})"
                )
    for behaviour, late in result["train_after_held_out"].items():
        if late["count"] and result["split"] == "time":
            what = {TIMELINE: "events", EXAMPLE: "examples"}[behaviour]
            said.append(f"{late['count']:,} training {what} ({late['share']:.1%}) are no earlier than the first held-out event")
    early = result["test_before_others_train"]
    if early["count"] and result["has_time"] and result["split"] != "time":
        said.append(
            f"{early['share']:.1%} of the test events come before another user's newest training event: under split.kind "
            f"{result['split']} a model sees the future; kind time prevents it"
        )
    return said


@dataclass
class _Count:
    count: int = 0
    total: int = 0

    def add(self, hits: np.ndarray) -> None:
        self.count, self.total = self.count + int(hits.sum()), self.total + len(hits)

    def report(self) -> dict[str, float]:
        return {"count": self.count, "share": self.count / max(1, self.total)}


@dataclass
class _Pairs:
    """The distinct pairs of a held-out split, in order of user and item, and where else they were seen."""

    key_P: np.ndarray
    events_P: np.ndarray  # held-out events of the pair
    place_P: np.ndarray  # place in its timeline of the first of them
    first_place_P: np.ndarray  # place of the pair's first event of all
    seen: dict[str, np.ndarray]

    @classmethod
    def of(cls, parts: list[tuple[np.ndarray, np.ndarray]]) -> "_Pairs":
        """From keys and places of the held-out events, in the order of the timelines."""
        nothing = np.empty(0, np.int64)
        key, place = (np.concatenate(arrays) for arrays in zip((nothing, nothing), *parts, strict=True))
        key_P, first, events_P = np.unique(key, return_index=True, return_counts=True)
        nowhere = {behaviour: np.zeros(len(key_P), bool) for behaviour in (TIMELINE, EXAMPLE)}
        return cls(key_P, events_P, place[first], place[first].copy(), nowhere)

    def see(self, behaviour: str, key: np.ndarray) -> None:
        self.seen.setdefault(behaviour, np.zeros(len(self.key_P), bool))[self._find(key)[0]] = True

    def see_place(self, key: np.ndarray, place: np.ndarray) -> None:
        found, is_found = self._find(key)
        np.minimum.at(self.first_place_P, found, place[is_found])

    def report(self, ids: tuple[pa.ChunkedArray, pa.ChunkedArray], examples: int) -> dict[str, Any]:
        total = int(self.events_P.sum())
        counts = {behaviour: self.events_P * is_seen_P for behaviour, is_seen_P in self.seen.items()}
        counts["earlier"] = self.events_P - (self.place_P == self.first_place_P)
        return {"events": total, "seen": {name: self._told(count_P, total, ids, examples) for name, count_P in counts.items()}}

    def _told(
        self, count_P: np.ndarray, total: int, ids: tuple[pa.ChunkedArray, pa.ChunkedArray], examples: int
    ) -> dict[str, Any]:
        hit = np.flatnonzero(count_P)
        shown = [[ids[0][key >> 32].as_py(), ids[1][key & 0xFFFFFFFF].as_py()] for key in self.key_P[hit[:examples]].tolist()]
        events = int(count_P.sum())
        return {"pairs": len(hit), "events": events, "share": events / max(1, total), "examples": shown}

    def _find(self, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pairs the keys are, of those that are any, and which keys those are."""
        place = np.searchsorted(self.key_P, key)
        is_found = np.append(self.key_P, -1)[place] == key
        return place[is_found], is_found


def _held_out(dataset: Path, manifest: dict[str, Any], rows: int) -> tuple[dict[int, _Pairs], int, np.ndarray]:
    """The pairs of both held-out splits, the time of the first held-out event and of every user's newest training event."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {VALID: [], TEST: []}
    first_ms = int(BOUNDS.max)
    newest_ms_U = np.full(map_file(dataset / USERS_FILE).num_rows, BOUNDS.min)
    for part in timeline_slices(dataset, manifest, rows=rows):
        user_E, key_E, time_ms_E, place_E, split_E = part[USER], pair_key(part), part[TIME_MS], part[PLACE], part[SPLIT]
        for split, parts in found.items():
            parts.append((key_E[split_E == split], place_E[split_E == split]))
        first_ms = int(time_ms_E[split_E != TRAIN].min(initial=first_ms))
        is_train_E = split_E == TRAIN
        np.maximum.at(newest_ms_U, user_E[is_train_E], time_ms_E[is_train_E])
    return {split: _Pairs.of(parts) for split, parts in found.items()}, first_ms, newest_ms_U
