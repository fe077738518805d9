"""A file of what is sold, read into columns: CSV or Parquet. Shapes: N = rows of the file."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from recsys.errors import InputError

Array = NDArray[Any]
ITEM, STOCK, FROM, UNTIL, REGIONS = "item_id", "in_stock", "available_from", "expires", "regions"
COLUMNS = (ITEM, STOCK, FROM, UNTIL, REGIONS)
YES, NO = ("true", "1", "yes"), ("false", "0", "no")
ALWAYS_MS, NEVER_MS = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Listing:
    """What the file says of its items; an empty cell limits nothing."""

    item_id: pa.Array  # text
    stock_N: Array
    from_ms_N: Array  # sold from then on
    until_ms_N: Array  # and no longer then
    anywhere_N: Array  # no regions named: sold in all
    region_rows: dict[str, Array]  # region -> the rows that name it


def read_catalogue(path: Path) -> Listing:
    """Raises InputError with the file, and the column or value that cannot be used."""
    try:
        table = _table(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"catalogue {path} cannot be read ({' '.join(str(error).split())[:200]}): mend the file") from error
    if unknown := [name for name in table.column_names if name not in COLUMNS]:
        raise InputError(f"catalogue {path} has an unknown column {unknown[0]!r}: the columns are {', '.join(COLUMNS)}")
    if ITEM not in table.column_names:
        raise InputError(f"catalogue {path} has no column {ITEM}: add it, an item id in each row")
    if len(set(table.column_names)) != len(table.column_names):
        raise InputError(f"catalogue {path} has a column twice: keep one of each name")
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    items = columns[ITEM].cast(pa.string())
    if items.null_count or pc.any(pc.equal(items, "")).as_py():
        raise InputError(f"catalogue {path} has a row without {ITEM}: fill it in or take the row out")
    counts = pc.value_counts(items)
    if len(counts) < len(items):
        twice = counts.field("values")[int(np.argmax(counts.field("counts").to_numpy()))]
        raise InputError(f"catalogue {path} names item {twice.as_py()!r} twice: keep one row of each item")
    rows = len(items)
    anywhere_N, region_rows = _regions(path, columns.get(REGIONS), rows)
    return Listing(
        items,
        _yes_or_no(path, columns.get(STOCK), rows),
        _times_ms(path, FROM, columns.get(FROM), rows, ALWAYS_MS),
        _times_ms(path, UNTIL, columns.get(UNTIL), rows, NEVER_MS),
        anywhere_N,
        region_rows,
    )


def _table(path: Path) -> pa.Table:
    match path.suffix:
        case ".csv":
            as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=True)
            return pa.csv.read_csv(path, convert_options=as_text)
        case ".parquet":
            return pa.parquet.read_table(path)
        case _:
            raise InputError(f"catalogue {path} is neither .csv nor .parquet: write one of them")


def _yes_or_no(path: Path, column: pa.Array | None, rows: int) -> Array:
    if column is None:
        return np.ones(rows, dtype=bool)
    if not pa.types.is_boolean(column.type):
        text = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
        empty = pc.or_kleene(pc.is_null(text), pc.equal(text, ""))
        fits = pc.or_kleene(empty, pc.is_in(text, pa.array([*YES, *NO])))
        _refuse_first(path, STOCK, column, fits, "write true or false")
        column = pc.if_else(empty, True, pc.is_in(text, pa.array(YES)))
    return np.asarray(pc.fill_null(column, True).to_numpy(zero_copy_only=False), dtype=bool)


def _times_ms(path: Path, name: str, column: pa.Array | None, rows: int, missing: int) -> Array:
    if column is None:
        return np.full(rows, missing, dtype=np.int64)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.to_pylist()
        found = [None if text is None or not text.strip() else _moment(text.strip()) for text in texts]
        bad = [text is not None and bool(text.strip()) and ms is None for text, ms in zip(texts, found, strict=True)]
        _refuse_first(path, name, column, pa.array([not each for each in bad], pa.bool_()), "write 2026-01-31T12:00:00Z")
        column = pa.array(found, pa.int64())
    elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms", getattr(column.type, "tz", None)), safe=False).cast(pa.int64())
    elif not pa.types.is_integer(column.type):
        raise InputError(f"catalogue {path} has {name} as {column.type}: write milliseconds since 1970, or ISO text")
    return np.asarray(pc.fill_null(column.cast(pa.int64()), missing).to_numpy(), dtype=np.int64)


def _moment(text: str) -> int | None:
    """Milliseconds since 1970 of a number of them or of ISO text, which is in UTC where it names no zone."""
    try:
        if text.lstrip("-").isdecimal():
            return int(text) if abs(int(text)) < 2**62 else None
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _regions(path: Path, column: pa.Array | None, rows: int) -> tuple[Array, dict[str, Array]]:
    if column is None:
        return np.ones(rows, dtype=bool), {}
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise InputError(f"catalogue {path} has {REGIONS} as {column.type}: write them as text, separated by |")
        column = pc.split_pattern(column, "|")
    row_R = np.asarray(pc.list_parent_indices(column).to_numpy(), dtype=np.int64)
    text = pc.utf8_trim_whitespace(pc.list_flatten(column).cast(pa.string())).dictionary_encode()
    code_R = np.asarray(pc.fill_null(text.indices, -1).to_numpy(), dtype=np.int64)
    names = text.dictionary.to_pylist()
    found = {name: row_R[code_R == code] for code, name in enumerate(names) if name}
    anywhere_N = np.ones(rows, dtype=bool)
    for row_M in found.values():
        anywhere_N[row_M] = False
    return anywhere_N, found


def _refuse_first(path: Path, name: str, column: pa.Array, fits: pa.Array, mend: str) -> None:
    """Raise InputError for the first value that does not fit."""
    wrong = np.flatnonzero(~np.asarray(pc.fill_null(fits, False).to_numpy(zero_copy_only=False), dtype=bool))
    if len(wrong):
        raise InputError(f"catalogue {path} has {name} {column[int(wrong[0])].as_py()!r} in row {wrong[0] + 1}: {mend}")
