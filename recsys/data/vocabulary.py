"""External values to dense ids that only grow. 0 is padding, 1 is unknown, real ids begin at 2.

Ids follow the arrival unit that brought a value's first row, then the sorted order of the values, so that a log read at once
and the same log read day by day give the same ids. Shapes: C = codes of one `Encoder`, V = distinct values, N = rows.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.columns import FIRST_ID, UNKNOWN_ID

VALUE, ARRIVAL = "value", "arrival"
REPLACEMENT = "\ufffd"  # what stands where bytes were no UTF-8
UNSEEN = 2**31 - 1  # the arrival of values of bad rows only


class Encoder:
    """Text to codes 0, 1, 2 ... of one process, in an order that means nothing, and the arrival unit that first used each.

    Cleaning and checking happen once for each distinct text, not for each row: texts that are equal without the white space
    around them have several codes and one value.
    """

    def __init__(self) -> None:
        self._dtype = pl.Categorical(pl.Categories.random())
        self._anchor = pl.Series([], dtype=self._dtype)  # Polars forgets categories that no series uses
        self._values: list[pl.Series] = []
        self._arrival_C = np.empty(0, np.int32)
        self._doubtful_C = np.empty(0, bool)

    def codes(self, text: pl.Expr) -> pl.Expr:
        """Codes (32-bit) of a column of text, -1 where it is null; in a query, so that its threads do the work."""
        return text.cast(self._dtype).to_physical().cast(pl.Int32).fill_null(-1)

    def learn(self, code_N: np.ndarray) -> pl.Series:
        """Take in the codes of a chunk; returns the values that are new, in the order of their codes."""
        first, end = len(self._arrival_C), int(code_N.max(initial=-1)) + 1
        text = pl.Series(VALUE, np.arange(first, max(first, end), dtype=np.uint32)).cat.to(self._dtype).cast(pl.String)
        new = text.to_frame().select(pl.when(pl.col(VALUE).str.strip_chars() != "").then(pl.col(VALUE).str.strip_chars()))[
            VALUE
        ]
        self._values.append(new)
        self._arrival_C = np.append(self._arrival_C, np.full(len(new), UNSEEN, np.int32))
        damaged = new.is_null() | new.str.contains(REPLACEMENT, literal=True).fill_null(False)
        self._doubtful_C = np.append(self._doubtful_C, damaged.to_numpy())
        return new

    def doubtful(self, code_N: np.ndarray) -> bool:
        """Whether some value is missing, blank or not the text that it was."""
        return bool((code_N < 0).any()) or bool(self._doubtful_C.any() and self._doubtful_C[code_N].any())

    def seen(self, code_N: np.ndarray, arrival: int) -> None:
        """Note that good rows of this arrival unit have these codes, -1 for none. Units come in their order."""
        code_N = code_N[code_N >= 0] if (code_N < 0).any() else code_N
        self._arrival_C[code_N[self._arrival_C[code_N] == UNSEEN]] = arrival

    def values(self) -> pl.Series:
        """Clean text in the order of the codes, null where nothing is left."""
        return pl.concat([pl.Series(VALUE, [], dtype=pl.String), *self._values])

    def table(self) -> pl.DataFrame:
        """`value` and `arrival`, row = code. Values of bad rows only have an arrival after all others."""
        return pl.DataFrame({VALUE: self.values(), ARRIVAL: self._arrival_C})


def unify(tables: Sequence[pl.DataFrame], old: pl.Series) -> tuple[pl.Series, list[np.ndarray]]:
    """Values of all encoders after those of `old`, and for each encoder the place of every code's value among them, or -1."""
    known = pl.DataFrame({VALUE: old})
    firsts = (
        pl.concat([table.lazy() for table in tables])
        .filter(pl.col(VALUE).is_not_null())
        .group_by(VALUE)
        .agg(pl.col(ARRIVAL).min())
    )
    new = firsts.filter(pl.col(ARRIVAL) != UNSEEN).join(known.lazy(), on=VALUE, how="anti").sort(ARRIVAL, VALUE).collect()
    values = pl.concat([old.alias(VALUE), new[VALUE]])
    places = pl.DataFrame({VALUE: values, "place": np.arange(len(values), dtype=np.int32)})
    joined = [table.join(places, on=VALUE, how="left", maintain_order="left")["place"] for table in tables]
    return values, [place.fill_null(-1).to_numpy() for place in joined]


def dense_ids(values: pl.Series, arrival_V: np.ndarray, num_old: int) -> tuple[pl.DataFrame, np.ndarray]:
    """`value` and `arrival` in the order of the dense ids, and the id of every place, -1 for a value that no row is left of.

    `arrival_V` is the unit that brought the first row that stayed; one whose rows of a value were all set aside gives it no id.
    """
    places = pl.DataFrame({VALUE: values, ARRIVAL: arrival_V, "place": np.arange(len(values))})
    new = places[num_old:].filter(pl.col(ARRIVAL) != UNSEEN)
    kept = pl.concat([places[:num_old], new.sort(ARRIVAL, VALUE) if (new[ARRIVAL] > 0).any() else new])
    id_V = np.full(len(values), -1, np.int32)
    id_V[kept["place"].to_numpy()] = np.arange(FIRST_ID, FIRST_ID + len(kept))
    return kept.drop("place"), id_V


def vocabulary(values: pl.DataFrame, old: pl.Series) -> pl.Series:
    """`old`, then the distinct values that it lacks, by first arrival, then sorted; the place plus FIRST_ID is the dense id."""
    found = values.drop_nulls(VALUE).group_by(VALUE).agg(pl.col(ARRIVAL).min()).sort(ARRIVAL, VALUE)[VALUE]
    return pl.concat([old, found.filter(~found.is_in(old.implode()))])


def encode(values: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """Dense ids (32-bit) of `values`; null and unseen values become UNKNOWN_ID."""
    table = pl.DataFrame(
        {"value": vocabulary, "id": pl.int_range(FIRST_ID, FIRST_ID + len(vocabulary), dtype=pl.Int32, eager=True)}
    )
    joined = pl.DataFrame({"value": values}).join(table, on="value", how="left", maintain_order="left")
    return joined["id"].fill_null(UNKNOWN_ID)


def hashes(values: pl.Series) -> np.ndarray:
    """A 64-bit hash of every value (CRC-32 of its bytes forward and backward), the same in every process and version."""
    texts = [text.encode() for text in values.to_list()]
    return np.array([zlib.crc32(text) << 32 | zlib.crc32(text[::-1]) for text in texts], np.uint64)


def shards(values: pl.Series, num_shards: int) -> np.ndarray:
    """The shard of every value: CRC-32 of its bytes, modulo their number."""
    codes = [zlib.crc32(text.encode()) for text in values.to_list()]
    return (np.array(codes, np.uint32) % np.uint32(num_shards)).astype(np.uint16)
