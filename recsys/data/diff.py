"""What differs between two datasets, and why: config, inputs, code, ids, events, labels, features and splits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import FIRST_ID, LENGTH, SPLIT, SPLIT_NAMES, TRAIN_LENGTH, USERS_FILE, VALID_LENGTH
from recsys.data.content import EVENT_PARTS, KEY, RANK, TABLE_PARTS, Content, mix
from recsys.data.slices import Slice
from recsys.dataset import map_file, numbers

ROWS_AT_ONCE = 2_000_000
NUM_EXAMPLES = 5
ROW_NAMES = {"timeline": "events", "examples": "examples", "users": "users", "items": "items"}
COLUMN_NAMES = {SPLIT: "the split", RANK: "the place in the user's timeline"}


def diff(a: Path, b: Path) -> dict[str, Any]:
    """Everything that differs from dataset `a` to dataset `b`, ready for JSON. Raises InputError where one is no dataset.

    Events and examples are compared as multisets of (user, item, time) by external ids. A 64-bit hash stands for each row;
    memory is that of the id tables and of a few million rows.
    """
    before, after = Content(a), Content(b)
    old, new = before.manifest, after.manifest
    parts = {part: _part(part, before, after) for part in (*EVENT_PARTS, *TABLE_PARTS)}
    return {
        "before": str(a),
        "after": str(b),
        "same_files": old["fingerprint"] == new["fingerprint"],
        "same_content": all(part["same"] for part in parts.values()),
        "config": _changes(_dotted(old["config"]), _dotted(new["config"])),
        "inputs": _changes(old["inputs"], new["inputs"]),
        "code": {"before": old["code"], "after": new["code"]},
        "ids": {part: _ids(before.ids[part], after.ids[part]) for part in TABLE_PARTS},
        "splits": {"before": _splits(a), "after": _splits(b)},
        "parts": parts,
    }


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys whose values differ, with both values; None stands for a key that is not there."""
    keys = sorted(key for key in {*old, *new} if key not in old or key not in new or old[key] != new[key])
    return [{"key": key, "before": old.get(key), "after": new.get(key)} for key in keys]


def _dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _ids(old: pl.Series, new: pl.Series) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, these, others in (("added", new, old), ("removed", old, new)):
        only = pl.DataFrame({"id": these[FIRST_ID:]}).join(pl.DataFrame({"id": others[FIRST_ID:]}), on="id", how="anti")["id"]
        found[name] = {"count": len(only), "examples": only.sort().head(NUM_EXAMPLES).to_list()}
    return found


def _splits(folder: Path) -> dict[str, int]:
    users = map_file(folder / USERS_FILE)
    length, train, valid = (int(numbers(users, name).sum()) for name in (LENGTH, TRAIN_LENGTH, VALID_LENGTH))
    return dict(zip(SPLIT_NAMES, (train, valid, length - train - valid), strict=True))


def _part(name: str, before: Content, after: Content) -> dict[str, Any]:
    """Columns, content fingerprints, rows added and removed, and how many of the common rows have another value."""
    old, new = before.columns(name), after.columns(name)
    common = [column for column in old if column in new]
    columns = {"added": [c for c in new if c not in old], "removed": [c for c in old if c not in new]}
    pairs: Iterable[tuple[Slice, Slice]] = (
        [(before.table(name, common), after.table(name, common))]
        if name in TABLE_PARTS
        else ((before.events(name, common, a), after.events(name, common, b)) for a, b in _users(name, before, after))
    )
    compared = _compare(pairs, common)
    prints = compared["fingerprint"]  # over the common columns
    return {"same": prints["before"] == prints["after"] and not any(columns.values()), "columns": columns, **compared}


def _users(part: str, before: Content, after: Content) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same users in both datasets' dense ids, so many at a time that their rows fit memory."""
    ids = [
        pl.DataFrame({"id": side.ids["users"], at: pl.int_range(len(side.ids["users"]), eager=True), f"{at}_rows": count})[
            FIRST_ID:
        ]
        for side, at, count in ((before, "a", before.rows_per_user(part)), (after, "b", after.rows_per_user(part)))
    ]
    rows = pl.sum_horizontal("a_rows", "b_rows").cum_sum() // ROWS_AT_ONCE
    users = ids[0].join(ids[1], on="id", how="full").sort("a", "b", nulls_last=True).with_columns(rows.alias("group"))
    for _, group in users.group_by("group", maintain_order=True):
        yield group["a"].drop_nulls().to_numpy(), group["b"].drop_nulls().sort().to_numpy()


def _compare(pairs: Iterable[tuple[Slice, Slice]], columns: Sequence[str]) -> dict[str, Any]:
    """Sizes of the multisets' differences, and of each column's among the rows whose key both have."""
    rows = {"before": 0, "after": 0, "added": 0, "removed": 0}
    sums = {"before": 0, "after": 0}  # of the hashes of whole rows: no order of rows changes a sum
    changed = dict.fromkeys(columns, 0)
    for pair in pairs:
        whole = [reduce(mix, side.values()) for side in pair]
        for side, hashes in zip(sums, whole, strict=True):
            rows[side] += len(hashes)
            sums[side] = (sums[side] + int(hashes.sum())) % 2**64
        surplus = _surplus(*whole)
        if surplus.is_empty():
            continue
        old, new = (_only_rows(side, hashes, surplus["hash"]) for side, hashes in zip(pair, whole, strict=True))
        removed, added = _sizes(old[KEY], new[KEY])
        rows["removed"] += removed
        rows["added"] += added
        for column in columns:
            changed[column] += _sizes(mix(old[KEY], old[column]), mix(new[KEY], new[column]))[0] - removed
    return {
        "fingerprint": {side: f"{total:016x}" for side, total in sums.items()},
        "rows": rows,
        "changed": {column: count for column, count in changed.items() if count},
    }


def _surplus(old: np.ndarray, new: np.ndarray) -> pl.DataFrame:
    """The values that one of two multisets has more often, with how much more often the first one has them."""
    signed = [
        pl.select(hash=pl.Series(hashes, dtype=pl.UInt64), n=pl.repeat(sign, len(hashes)))
        for hashes, sign in ((old, 1), (new, -1))
    ]
    counted = pl.concat(signed)
    if len(old) == len(new) and (old == new).all():
        return counted.clear()
    return counted.group_by("hash").agg(pl.col("n").sum()).filter(pl.col("n") != 0)


def _sizes(old: np.ndarray, new: np.ndarray) -> tuple[int, int]:
    """How many values only the first and only the second multiset has."""
    surplus = _surplus(old, new)["n"]
    return int(surplus.filter(surplus > 0).sum()), -int(surplus.filter(surplus < 0).sum())


def _only_rows(rows: Slice, hashes: np.ndarray, wanted: pl.Series) -> Slice:
    kept = pl.Series(hashes).is_in(wanted.implode()).to_numpy()
    return {name: values[kept] for name, values in rows.items()}


def explain(diff: Mapping[str, Any]) -> str:
    """The difference in lines of plain text, the most general first."""
    if diff["same_files"]:
        lines = ["identical files"]
    else:
        lines = ["identical content, other file layout" if diff["same_content"] else "the content differs"]
    lines += [f"config {c['key']}: {c['before']!r} -> {c['after']!r}" for c in diff["config"]]
    for change in diff["inputs"]:
        word = "added" if change["before"] is None else "removed" if change["after"] is None else "changed"
        lines.append(f"input {change['key']}: {word}")
    if diff["code"]["before"] != diff["code"]["after"]:
        lines.append(f"code: {diff['code']['before']} -> {diff['code']['after']}")
    for part, found in diff["ids"].items():
        for word in ("added", "removed"):
            if count := found[word]["count"]:
                examples = ", ".join(found[word]["examples"]) + (", ..." if count > NUM_EXAMPLES else "")
                lines.append(f"{part}: {count:,} {word} ({examples})")
    for name, part in diff["parts"].items():
        lines += _explain_part(name, part)
    sizes = diff["splits"]
    if sizes["before"] != sizes["after"]:
        lines.append("split sizes: " + ", ".join(f"{s} {sizes['before'][s]:,} -> {sizes['after'][s]:,}" for s in SPLIT_NAMES))
    return "\n".join(lines)


def _explain_part(name: str, part: Mapping[str, Any]) -> list[str]:
    lines = []
    rows = part["rows"]
    if name in ("timeline", "examples") and (rows["added"] or rows["removed"]):
        lines.append(
            f"{ROW_NAMES[name]}: {rows['added']:,} added, {rows['removed']:,} removed ({rows['before']:,} -> {rows['after']:,})"
        )
    lines += [f"{name} column {column}: {word}" for word in ("added", "removed") for column in part["columns"][word]]
    for column, count in part["changed"].items():
        lines.append(f"{ROW_NAMES[name]}: {COLUMN_NAMES.get(column, column)} differs in {count:,} common ones")
    return lines
