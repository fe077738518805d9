"""Semantic ids as files: the codes of every item, and what gives codes to items that come later."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file, save_file

from recsys.columns import ITEM_ID
from recsys.dataset import map_file, numbers
from recsys.generate.assign import Assigned, Codebook
from recsys.generate.ids import SemanticIds

CODES_FILE = "codes.arrow"
CODEBOOK_FILE = "codebook.safetensors"
QUALITY_FILE = "quality.json"
VECTORS, QUANTIZER, MEAN = "vectors/", "quantizer/", "mean"


def write(folder: Path, assigned: Assigned, item_ids: list[str | None], quality: dict[str, Any]) -> None:
    """`codes.arrow`: row = dense item id, `item_id` and `code_0`, `code_1`, ...; -1 in the reserved rows."""
    code_IT = assigned.ids.code_IT
    columns = {f"code_{level}": pa.array(code_IT[:, level], pa.int32()) for level in range(code_IT.shape[1])}
    table = pa.table({ITEM_ID: pa.array(item_ids, pa.large_utf8()), **columns})
    with pa.OSFile(str(folder / CODES_FILE), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    book = assigned.codebook
    arrays = {f"{VECTORS}{name}": array for name, array in book.vectors.items()}
    arrays |= {f"{QUANTIZER}{name}": array for name, array in book.quantizer.items()} | {MEAN: book.mean_D}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / CODEBOOK_FILE)
    (folder / QUALITY_FILE).write_text(json.dumps(quality, indent=1) + "\n")


def read_ids(folder: Path, sizes: list[int]) -> tuple[SemanticIds, list[str | None]]:
    """The ids, and the external id of each row."""
    table = map_file(folder / CODES_FILE)
    code_IT = np.stack([numbers(table, f"code_{level}") for level in range(len(sizes))], axis=1)
    return SemanticIds(code_IT, tuple(sizes)), table.column(ITEM_ID).to_pylist()


def read_codebook(folder: Path) -> Codebook:
    arrays = load_file(folder / CODEBOOK_FILE)
    of = {
        prefix: {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for prefix in (VECTORS, QUANTIZER)
    }
    return Codebook(of[VECTORS], of[QUANTIZER], arrays[MEAN])


def read_quality(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / QUALITY_FILE).read_text())
    return found
