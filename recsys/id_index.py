"""External id -> row of a table: sorted 64-bit hashes in a file that a reader maps, 12 bytes an id where a dict takes 150.

N = ids.
"""

import hashlib
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from recsys.columns import UNKNOWN_ID
from recsys.errors import InputError
from recsys.texts import Texts

SLICE = 65_536  # ids that are Python objects at a time


def id_hash(text: str) -> int:
    """The same in every process and version, as Python's own is not: the first 8 bytes of BLAKE2b of the UTF-8 text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def id_table(texts: pa.ChunkedArray) -> pa.RecordBatch:
    """`hash_N` in ascending order and the row of each; null ids (the reserved rows) are left out."""
    row_N = np.flatnonzero(texts.is_valid().to_numpy()).astype(np.int32)
    slices = (texts.slice(start, SLICE).to_pylist() for start in range(0, len(texts), SLICE))
    hash_N = np.fromiter((id_hash(text) for part in slices for text in part if text is not None), np.uint64, len(row_N))
    order_N = np.argsort(hash_N, kind="stable")
    return pa.record_batch({"hash": pa.array(hash_N[order_N]), "row": pa.array(row_N[order_N])})


def write_id_index(texts: pa.ChunkedArray, path: Path) -> None:
    table = id_table(texts)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table)


class IdIndex:
    """Finds rows in `texts`, the column that `table` was made from (None: it is made here, in a second a million ids)."""

    def __init__(self, texts: pa.ChunkedArray, table: pa.RecordBatch | pa.Table | None = None):
        self._texts = Texts(texts)
        table = id_table(texts) if table is None else table
        self._hash_N, self._row_N = (_numbers(table, name) for name in ("hash", "row"))

    @classmethod
    def open(cls, texts: pa.ChunkedArray, path: Path) -> Self:
        """Raises InputError where the file does not fit the ids."""
        index = cls(texts, pa.ipc.open_file(pa.memory_map(str(path))).read_all())
        if len(index._row_N) != len(texts) - texts.null_count:
            raise InputError(
                f"{path} is of {len(index._row_N)} ids, its table has others: make the bundle with `recsys export`"
            )
        return index

    def find(self, text: str) -> int:
        """The row of an id, UNKNOWN_ID where the table lacks it."""
        wanted = np.uint64(id_hash(text))
        place = int(self._hash_N.searchsorted(wanted))
        while place < len(self._hash_N) and self._hash_N[place] == wanted:
            row = int(self._row_N[place])
            if self._texts[row] == text:
                return row
            place += 1
        return UNKNOWN_ID


def _numbers(table: pa.RecordBatch | pa.Table, name: str) -> np.ndarray:
    column = table.column(name)
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: np.ndarray = column.to_numpy(zero_copy_only=True)
    return values
