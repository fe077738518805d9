"""Small datasets in the files of format version 2, written event by event and apart from the code that makes real ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.artefact import FORMAT_VERSIONS, file_hash, fingerprint

Event = tuple[str, str, int, int]  # user, item, time in ms, split
REPORT = {"rows_read": 0, "rows_quarantined": 0, "quarantined_by_rule": {}, "rows_kept": 0}


def write_dataset_files(
    folder: Path, segments: Sequence[Sequence[Event]], *, examples: Sequence[pl.DataFrame] = (), backwards: bool = False,
    users: Mapping[str, Mapping[str, Any]] | None = None, items: Mapping[str, Mapping[str, Any]] | None = None,
    titles: Mapping[str, str] | None = None, **manifest: Any,
) -> Path:  # fmt: skip
    """A dataset folder. A user's events stand in their order, in one or several segments, splits never falling.

    `examples`: frames with user_id, item_id, time_ms, split and any of the format's columns, context_NAME as text. `users` and
    `items`: feature -> id -> value or list of values. `backwards` numbers users, items and values in the opposite order.
    """
    (folder / "timeline").mkdir(parents=True)
    (folder / "examples").mkdir()
    frames = [pl.DataFrame(s, ["user_id", "item_id", "time_ms", "split"], orient="row") for s in segments]
    events, labelled = pl.concat(frames), pl.concat(examples, how="diagonal") if examples else None
    extra = (labelled["user_id"].to_list(), labelled["item_id"].to_list()) if labelled is not None else ([], [])
    user_ids = _ordered([*events["user_id"], *extra[0]], backwards)
    item_ids = _ordered([*events["item_id"], *extra[1], *[key for of in (items or {}).values() for key in of]], backwards)
    user, item = ({value: code for code, value in enumerate(ids, 2)} for ids in (user_ids, item_ids))
    vocabulary: list[dict[str, Any]] = []
    for number, frame in enumerate(frames):
        dense = _dense(frame, user, item).select("user", "item", "time_ms")
        _write(dense.sort("user", maintain_order=True), folder / "timeline" / f"{number:03d}.arrow")
    for number, frame in enumerate(examples):
        for name in (name for name in frame.columns if name.startswith("context_")):
            texts = labelled[name].drop_nulls().to_list() if labelled is not None else []
            codes = _vocabulary(vocabulary, "context", name.removeprefix("context_"), texts, backwards)
            frame = frame.with_columns(pl.Series(name, [codes.get(value, 1) for value in frame[name]], pl.Int32))
        dense = _dense(frame, user, item).drop("user_id", "item_id").sort("user", maintain_order=True)
        _write(dense.drop("split"), folder / "examples" / f"{number:03d}.arrow")
        _write(dense.select(pl.col("split").cast(pl.Int8)), folder / "examples" / f"{number:03d}.split.arrow")
    counts = [[sum(u == name and s in splits for u, _, _, s in events.iter_rows()) for name in (None, None, *user_ids)]
              for splits in ((0, 1, 2), (0,), (1,))]  # fmt: skip
    lengths = dict(zip(("length", "train_length", "valid_length"), counts, strict=True))
    table = {"user_id": [None, None, *user_ids], "start": (np.cumsum(counts[0]) - counts[0]).tolist(), **lengths}
    for name, values in (users or {}).items():
        table[f"feature_{name}"] = _codes(vocabulary, "user", name, values, user_ids, backwards)
    _write(pl.DataFrame(table, _types(table)), folder / "users.arrow")
    train = [sum(i == name and s == 0 for _, i, _, s in events.iter_rows()) for name in (None, None, *item_ids)]
    table = {"item_id": [None, None, *item_ids], "train_count": train}
    for name, values in (items or {}).items():
        table[f"feature_{name}"] = _codes(vocabulary, "item", name, values, item_ids, backwards)
    if titles is not None:
        table["title"] = [titles.get(key) for key in table["item_id"]]
    _write(pl.DataFrame(table, _types(table)), folder / "items.arrow")
    if vocabulary:
        unique = {(v["owner"], v["feature"], v["code"]): v for v in vocabulary}
        pl.DataFrame(list(unique.values())).write_parquet(folder / "vocabularies.parquet")
    files = {str(path.relative_to(folder)): file_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    written = {
        "kind": "dataset", "format_version": FORMAT_VERSIONS["dataset"], "code": "abc", "config": {}, "inputs": {},
        "has_time": True, "tasks": [], "report": REPORT, "files": files, "fingerprint": fingerprint(files),
        "segments": {kind: [f"{n:03d}" for n in range(count)]
                     for kind, count in (("timeline", len(segments)), ("examples", len(examples)))},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(written | manifest))
    return folder


def _ordered(values: Sequence[str], backwards: bool) -> list[str]:
    return sorted(set(values), reverse=backwards)


def _dense(frame: pl.DataFrame, user: Mapping[str, int], item: Mapping[str, int]) -> pl.DataFrame:
    return frame.with_columns(
        pl.Series("user", [user[value] for value in frame["user_id"]], pl.Int32),
        pl.Series("item", [item[value] for value in frame["item_id"]], pl.Int32),
    )


def _vocabulary(found: list[dict[str, Any]], owner: str, name: str, values: Sequence[str], backwards: bool) -> dict[str, int]:
    codes = {value: code for code, value in enumerate(_ordered(values, backwards), 2)}
    found += [{"owner": owner, "feature": name, "code": code, "value": value} for value, code in codes.items()]
    return codes


def _codes(
    found: list[dict[str, Any]], owner: str, name: str, values: Mapping[str, Any], ids: Sequence[str], backwards: bool
) -> list[Any]:
    listed = any(isinstance(value, list) for value in values.values())
    texts = [text for value in values.values() for text in (value if listed else [value])]
    codes = _vocabulary(found, owner, name, texts, backwards)
    if listed:
        return [[0], [1], *[[codes[text] for text in values[key]] if key in values else [1] for key in ids]]
    return [0, 1, *[codes[values[key]] if key in values else 1 for key in ids]]


def _types(table: Mapping[str, list[Any]]) -> dict[str, Any]:
    def kind(name: str, values: list[Any]) -> Any:
        if name.startswith("feature_"):
            return pl.List(pl.Int32) if isinstance(values[0], list) else pl.Int32
        return pl.String if name in ("user_id", "item_id", "title") else pl.Int64

    return {name: kind(name, values) for name, values in table.items()}


def _write(frame: pl.DataFrame, path: Path) -> None:
    frame.rechunk().write_ipc(
        path, compression="uncompressed", compat_level=pl.CompatLevel.oldest(), record_batch_size=2**31 - 1
    )
