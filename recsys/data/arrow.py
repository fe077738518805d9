"""How tables lie on disk: Arrow IPC, uncompressed and in one record batch, so that readers map the file and copy nothing."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

MAX_ROWS = 2**31 - 1  # of one record batch


def write_arrow(frame: pl.DataFrame, path: Path) -> None:
    """Under another name first, since `frame` may be a map of the file that it replaces."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    frame.rechunk().write_ipc(
        part, compression="uncompressed", compat_level=pl.CompatLevel.oldest(), record_batch_size=MAX_ROWS
    )
    part.replace(path)


def write_columns(columns: Mapping[str, np.ndarray | pa.Array], path: Path) -> None:
    """The same from arrays, which may be maps of files larger than memory."""
    batch = record_batch(columns)
    path.parent.mkdir(exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        if batch.num_rows:
            writer.write_batch(batch)


def record_batch(columns: Mapping[str, np.ndarray | pa.Array]) -> pa.RecordBatch:
    """Arrays as Arrow columns, numbers without a copy.

    `pa.array` would import pandas first, which takes a fifth of a second.
    """
    return pa.RecordBatch.from_arrays([_column(values) for values in columns.values()], names=list(columns))


def _column(values: np.ndarray | pa.Array) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if values.dtype == np.bool_:
        return pl.Series(values).to_arrow()
    whole = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(whole.dtype), len(whole), [None, pa.py_buffer(whole)])


def read_arrow(path: Path) -> pl.DataFrame:
    """Mapped, not read: columns come into memory as they are used."""
    with pa.memory_map(str(path)) as file:
        frame = pl.from_arrow(pa.ipc.open_file(file).read_all())
    assert isinstance(frame, pl.DataFrame)
    return frame
