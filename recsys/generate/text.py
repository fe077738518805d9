"""Words and character n-grams of texts, counted in hashed columns. Shapes: N = texts, H = columns."""

import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse

WORD = re.compile(r"\w+")


def words(text: str, shortest: int, longest: int) -> Iterator[str]:
    """Every word in lower case, and its n-grams with the ends marked; none where `longest` is 0."""
    for word in WORD.findall(text.lower()):
        yield f"w {word}"
        marked = f"<{word}>"
        for size in range(shortest, longest + 1):
            for start in range(len(marked) - size + 1):
                yield f"c {marked[start : start + size]}"


def count(tokens: Sequence[Sequence[str]], columns: int) -> sparse.csr_array:
    """count_NH: how often each list has a token that falls into each column, by CRC-32, the same in every process."""
    found = [[zlib.crc32(token.encode()) % columns for token in row] for row in tokens]
    lengths = np.array([len(row) for row in found], np.int64)
    column = np.fromiter((each for row in found for each in row), np.int64, int(lengths.sum()))
    place = np.repeat(np.arange(len(found)), lengths)
    return sparse.csr_array((np.ones(len(column), np.float32), (place, column)), shape=(len(found), columns))
