"""Dense ids: what all tasks found, put together. Shapes: V = distinct values of a column, C = codes of one ingest task."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from recsys.columns import ARRIVAL, FIRST_ID, IN_HISTORY, ITEM, UNKNOWN_ID, USER
from recsys.data.arrow import read_arrow
from recsys.data.before import Before
from recsys.data.filters import Filters, check_dropped, k_core
from recsys.data.ingest import Ingested, dictionary
from recsys.data.settle import Settled
from recsys.data.vocabulary import UNSEEN, VALUE, dense_ids, hashes, unify
from recsys.errors import InputError


def id_file(scratch: Path, column: str) -> Path:
    """The dense id of every place, -1 where the value is dropped."""
    return scratch / f"{column}.npy"


def hash_file(scratch: Path, column: str) -> Path:
    """The hash of every dense id's value."""
    return scratch / f"hash_{column}.npy"


def place_values(ingested: Sequence[Ingested], names: Sequence[str], before: Before) -> dict[str, pl.Series]:
    """All distinct values by column, old ones first; every ingest folder gets the place of each of its codes."""

    def place(name: str) -> pl.Series:
        tables = [read_arrow(dictionary(found.folder, name)) for found in ingested]
        values, maps = unify(tables, before.values(name))
        shift = 0 if name in (USER, ITEM) else FIRST_ID
        for found, map_C in zip(ingested, maps, strict=True):  # code -1, a missing value, reads the last entry
            np.save(found.folder / f"{name}.npy", np.append(map_C + shift, UNKNOWN_ID).astype(np.int32))
        return values

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(names, threads.map(place, names), strict=True))


def hash_places(places: Mapping[str, pl.Series], before: Before) -> dict[str, np.ndarray]:
    """The hash of every value by column, in the order of their places. Old ones are known."""
    known = {name: before.hashes(name)[FIRST_ID:] for name in places}
    return {name: np.append(known[name], hashes(values[len(known[name]) :])) for name, values in places.items()}


def number_values(
    values: dict[str, pl.Series],
    hash_of: Mapping[str, np.ndarray],
    settled: Sequence[Settled],
    before: Before,
    filters: Filters,
    scratch: Path,
) -> tuple[dict[str, pl.DataFrame], int]:
    """Drop rare users and items, then give dense ids to values that still have rows; `values` then lists these.

    Returns users and items with the arrival of their first row, and how many rows were dropped. Raises InputError where too
    many were.
    """
    arrivals, kept = _arrivals(values, settled, filters)
    total = sum(found.rows for found in settled)
    if not total and any(found.rows_dropped_by_steps for found in settled):
        raise InputError("`steps` drop every row: make them milder, or leave some out")
    if total or before.folder is None:
        check_dropped(filters, rows=total, kept=kept)
    ids = {}
    for name, arrival_V in arrivals.items():
        ids[name], id_V = dense_ids(values[name], arrival_V, len(before.values(name)))
        np.save(id_file(scratch, name), id_V)
        values[name] = ids[name][VALUE]
    for name, hash_V in hash_of.items():
        id_V = np.load(id_file(scratch, name)) if name in ids else np.arange(FIRST_ID, FIRST_ID + len(hash_V))
        hash_D = np.zeros(FIRST_ID + len(values[name]), np.uint64)
        hash_D[id_V[id_V >= FIRST_ID]] = hash_V[id_V >= FIRST_ID]
        np.save(hash_file(scratch, name), hash_D)
    return ids, total - kept


def _arrivals(values: dict[str, pl.Series], settled: Sequence[Settled], filters: Filters) -> tuple[dict[str, np.ndarray], int]:
    """The arrival unit of the first row that stays of each user and item, and how many rows stay."""

    def timeline_pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for found in settled:
            rows = read_arrow(found.out).filter(IN_HISTORY)
            yield rows[USER].to_numpy(), rows[ITEM].to_numpy()

    arrivals = {name: np.full(len(values[name]), UNSEEN, np.int32) for name in (USER, ITEM)}
    keep_V = dict(zip((USER, ITEM), k_core(timeline_pairs, len(values[USER]), len(values[ITEM]), filters), strict=True))
    kept = 0
    for found in settled:
        rows = read_arrow(found.out)
        code_of = {name: rows[name].to_numpy() for name in (USER, ITEM)}
        keep_N = keep_V[USER][code_of[USER]] & keep_V[ITEM][code_of[ITEM]]
        for name, code_N in code_of.items():
            if ARRIVAL in rows.columns:
                np.minimum.at(arrivals[name], code_N[keep_N], rows[ARRIVAL].to_numpy()[keep_N])
            else:
                arrivals[name][code_N[keep_N]] = 0
        kept += int(keep_N.sum())
    return arrivals, kept
