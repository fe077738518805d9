"""A split that the log brings with it, as published benchmarks do."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from recsys.columns import SPLIT, TEST, TRAIN, VALID
from recsys.data.splits.order import held_out_last
from recsys.errors import InputError
from recsys.spec import Spec

GIVEN_SPLIT = "given_split"  # the split of the file that a row comes from


class GivenFiles(Spec):
    """Rows of files whose name matches `valid` validate, those that match `test` test, all others train.

    Held-out events move to the end of the timeline, so that no training history holds one. Whether they are the later ones is
    up to whoever made the files.
    """

    kind: Literal["files"] = "files"
    valid: str = Field(
        min_length=1, description='glob over file names below the data folder, as in "valid/*"; * spans folders too'
    )
    test: str = Field(min_length=1, description="the same for the test files")
    causal: ClassVar[bool] = False

    def given(self, names: Sequence[str]) -> list[int]:
        """The split of every source file, named as below the data folder. Raises InputError."""
        hits = {field: [fnmatchcase(name, getattr(self, field)) for name in names] for field in ("valid", "test")}
        for field, hit in hits.items():
            if not any(hit):
                raise InputError(
                    f"split.{field} {getattr(self, field)!r} matches none of {len(names)} files, such as "
                    f"{', '.join(names[:3]) or 'none'}: mend the pattern"
                )
        for name, is_valid, is_test in zip(names, hits["valid"], hits["test"], strict=True):
            if is_valid and is_test:
                raise InputError(
                    f"{name} matches both split.valid {self.valid!r} and split.test {self.test!r}: narrow one of them"
                )
        return [VALID if is_valid else TEST if is_test else TRAIN for is_valid, is_test in zip(*hits.values(), strict=True)]

    def __call__(self, rows: pl.LazyFrame, *, cuts_ms: tuple[int, int] | None = None, ties: str = "file_order") -> pl.LazyFrame:
        """Rows need `given_split`."""
        return rows.with_columns(pl.col(GIVEN_SPLIT).cast(pl.Int8).alias(SPLIT)).pipe(held_out_last)
