"""A full disk by any of its names: libraries that are not written in Python have errors of their own for it."""

import errno
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SAID = (*(f"(os error {number})" for number in FULL), "database or disk is full")  # Rust: safetensors, Polars; SQLite


def is_full_disk(error: BaseException) -> bool:
    """Whether the error, or one that it came from, says that nothing more can be written."""
    return any(
        each.errno in FULL if isinstance(each, OSError) and each.errno is not None else any(text in str(each) for text in SAID)
        for each in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
