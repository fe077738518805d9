"""The dataset that an append goes on from, and whether it can."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.artefact import file_hash, is_there, read_manifest
from recsys.columns import (
    CONTEXT_PREFIX,
    FIRST_ID,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    TIME_MS,
    USER,
    USER_ID,
    USERS_FILE,
    VOCABULARIES_FILE,
)  # fmt: skip
from recsys.data import Data
from recsys.data.arrow import read_arrow
from recsys.data.piece import Piece
from recsys.errors import InputError

RECENT_FILE = "state/recent.arrow"  # the newest rows, which rows that arrive late may repeat


def feature_state_file(folder: Path, group: int) -> Path:
    return folder / "state" / f"features-{group}.npz"


def hash_state_file(folder: Path, column: str) -> Path:
    return folder / "state" / f"hash-{column}.npy"


def _no_ids() -> pl.Series:
    return pl.Series([], dtype=pl.String)


@dataclass(frozen=True)
class Before:
    """`folder` is None where a dataset is built from scratch; everything else is empty then."""

    folder: Path | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    user_ids: pl.Series = field(default_factory=_no_ids)
    item_ids: pl.Series = field(default_factory=_no_ids)
    vocabularies: Mapping[tuple[str, str], pl.Series] = field(default_factory=dict)

    @property
    def pieces(self) -> list[str]:
        return list(self.manifest["pieces"]) if self.manifest else []

    @property
    def units(self) -> list[str]:
        return list(self.manifest["units"]) if self.manifest else []

    def vocabulary(self, owner: str, feature: str) -> pl.Series:
        return self.vocabularies.get((owner, feature), _no_ids())

    def values(self, column: str) -> pl.Series:
        """Known values of a column of ids or of a context feature, in the order of their dense ids."""
        known = {USER: self.user_ids, ITEM: self.item_ids}
        return known[column] if column in known else self.vocabulary("context", column.removeprefix(CONTEXT_PREFIX))

    def count(self, owner: str, column: str, size: int) -> np.ndarray:
        """A column of counts of the user or item table, zero for the ids from there to `size`."""
        if self.folder is None:
            return np.zeros(size, np.int64)
        known = read_arrow(self.folder / (USERS_FILE if owner == USER else ITEMS_FILE))[column].to_numpy()
        return np.pad(known, (0, size - len(known)))

    def hashes(self, column: str) -> np.ndarray:
        """The hash of every known value of a column by dense id, the reserved ones included."""
        if self.folder is None:
            return np.zeros(FIRST_ID, np.uint64)
        return np.load(hash_state_file(self.folder, column), mmap_mode="r")

    def times(self) -> Iterator[np.ndarray]:
        """Times of the timeline events, file by file."""
        for path in self.segments("timeline"):
            yield read_arrow(path)[TIME_MS].to_numpy()

    @property
    def recent(self) -> Path | None:
        return None if self.folder is None else self.folder / RECENT_FILE

    def feature_state(self, group: int) -> Path:
        """What point-in-time features of one key go on from."""
        assert self.folder is not None
        return feature_state_file(self.folder, group)

    def segments(self, table: str) -> list[Path]:
        return (
            [] if self.folder is None else [self.folder / table / f"{name}.arrow" for name in self.manifest["segments"][table]]
        )


def _manifest(out: Path) -> dict[str, Any]:
    """Of the dataset in `out`, empty where there is none that this code reads."""
    try:
        return read_manifest(out, "dataset")
    except InputError:
        return {}


def fingerprints(
    data: Data, pieces: Sequence[Piece], raw: Path, out: Path, *, anew: bool
) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Of every raw file what it is recognised by, and its size and time of change.

    A file that has those of the dataset in `out` is taken for the same and not read again, so that an append costs what is new;
    with `anew` every file is read.
    """
    files = {piece.name: Path(piece.location) for piece in pieces}
    for table in filter(None, (data.users, data.items)):
        files |= {str(file.relative_to(raw)): file for file in table.files(raw)}
    found = {name: file.stat() for name, file in files.items() if file.is_file()}
    stats = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}
    before = {} if anew else _manifest(out)
    same = {name for name, stat in stats.items() if before.get("stats", {}).get(name) == stat}
    by_name = {piece.name: piece for piece in pieces}
    inputs = {
        name: before["inputs"][name] if name in same else by_name[name].fingerprint() if name in by_name else file_hash(file)
        for name, file in files.items()
    }
    return inputs, stats


def previous(
    data: Data, declared: Mapping[str, Any], pieces: Sequence[Piece], inputs: Mapping[str, str], out: Path, *, anew: bool
) -> tuple[Before, str]:
    """What `out` holds where the new pieces can be appended to it, else nothing; and a sentence for the report."""
    if anew:
        return Before(), "built from scratch, as asked"
    if not is_there(out):
        return Before(), "built from scratch: there was no dataset"
    manifest = _manifest(out)
    if not manifest:
        return Before(), "built from scratch: there was no dataset of this format"
    why_not = _why_not(data, declared, pieces, inputs, manifest)
    if why_not:
        return Before(), f"built from scratch: {why_not}"
    new = len(pieces) - len(manifest["pieces"])
    return _load(out, manifest), f"appended {new} new file{'' if new == 1 else 's'} to the dataset of {manifest['created']}"


def _why_not(
    data: Data, declared: Mapping[str, Any], pieces: Sequence[Piece], inputs: Mapping[str, str], manifest: Mapping[str, Any]
) -> str:
    if manifest["config"] != declared:
        return "the `data` section changed"
    if manifest["polars"] != pl.__version__:
        return f"Polars was {manifest['polars']} and is {pl.__version__} now"
    if inputs == manifest["inputs"]:
        return ""
    if data.events.arrives == "together":
        return "the files changed, and events.arrives is together"
    if data.looks_ahead:
        return f"{data.looks_ahead} lets new rows change old ones"
    if manifest["report"]["time_unit"] != data.events.time_unit:
        return f"the first rows show time in {data.events.time_unit}"
    names = [piece.name for piece in pieces]
    if names[: len(manifest["pieces"])] != manifest["pieces"] or any(
        inputs[name] != manifest["inputs"][name] for name in manifest["pieces"]
    ):
        return "files it was made from changed, or new ones sort before them"
    if {piece.unit for piece in pieces[len(manifest["pieces"]) :]} & set(manifest["units"]):
        return "new files lie in folders that were read before"
    return ""


def _load(folder: Path, manifest: Mapping[str, Any]) -> Before:
    vocabularies: dict[tuple[str, str], pl.Series] = {}
    if (folder / VOCABULARIES_FILE).is_file():
        table = pl.read_parquet(folder / VOCABULARIES_FILE).sort("code", maintain_order=True)
        for (owner, feature), rows in table.group_by("owner", "feature"):
            vocabularies[str(owner), str(feature)] = rows["value"]
    users, items = (read_arrow(folder / file)[name][FIRST_ID:] for file, name in ((USERS_FILE, USER_ID), (ITEMS_FILE, ITEM_ID)))
    return Before(folder, manifest, users, items, vocabularies)


def link_all(before: Before, table: str, folder: Path, kept: dict[str, str]) -> list[str]:
    names = [path.stem for path in before.segments(table)]
    for name in names:
        link_file(before, f"{table}/{name}.arrow", folder, kept)
    return names


def link_file(before: Before, name: str, folder: Path, kept: dict[str, str]) -> None:
    """The same file under a second name, so that an append does not copy what it keeps."""
    assert before.folder is not None
    (folder / name).parent.mkdir(exist_ok=True)
    try:
        os.link(before.folder / name, folder / name)
    except OSError:  # a file system without links
        shutil.copyfile(before.folder / name, folder / name)
    kept[name] = before.manifest["files"][name]
