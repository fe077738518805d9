"""Does an adapter fit its files? Each mismatch is one sentence that names the file, the field of the config."""

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from recsys.data.location import TEXT_SUFFIXES, suffix_of
from recsys.data.text import PLACE, UNREADABLE
from recsys.errors import InputError


def require(frame: pl.LazyFrame, columns: list[str], file: Path | str, field: str = "") -> None:
    """Raise InputError when a column is missing, naming the file, the column and what is there."""
    present = frame.collect_schema().names()
    for column in columns:
        if column not in present:
            shown = ", ".join(name for name in present if name not in (PLACE, UNREADABLE))
            wanted = f", which {field} reads" if field else ""
            raise InputError(
                f"{file} has no column {column!r}{wanted}: map one of [{shown}] in the `data` section of the config"
            )


def check_expressions(frame: pl.LazyFrame, expressions: Mapping[str, str], file: Path | str) -> None:
    """Raise InputError when an expression names a missing column, does not fit the types or reads other rows than its own."""
    schema = frame.collect_schema()
    nothing = pl.DataFrame(schema=schema)
    for field, text in expressions.items():
        expression = pl.sql_expr(text)
        require(frame, expression.meta.root_names(), file, field)
        try:
            nothing.select(expression.alias("value"))
        except PolarsError as error:
            is_text = suffix_of(str(file)) in TEXT_SUFFIXES
            hint = "; text columns become numbers when `columns` declares them" if is_text else ""
            raise InputError(f"{file}: {field} = {text!r} does not fit the data: {first_line(error)}{hint}") from error
        if _reads_other_rows(expression, schema):
            raise InputError(
                f"{file}: {field} = {text!r} reads other rows than its own, the future's too: use columns of the row only"
            )


def first_line(error: Exception) -> str:
    """What happened, in one line."""
    unclosed = re.search(r"Field `(.{1,40}).*` is not properly escaped", str(error), re.DOTALL)
    if unclosed:
        return f"the quotation marks of the field that begins with {unclosed[1]!r} do not match; perhaps set `quotes: false`"
    return str(error).strip().split("\n")[0][:300]


def _reads_other_rows(expression: pl.Expr, schema: pl.Schema) -> bool:
    """Whether any part is an aggregate or a window, such as AVG(click)."""
    if expression.meta.eq(pl.len()):  # COUNT(*), which names no column
        return True
    try:
        alone = not expression.meta.root_names() or expression.meta.is_row_separable()
    except PolarsError:  # SQL operators that Polars resolves by type: arithmetic, all of them row by row
        alone = True
    return not alone or any(_reads_other_rows(part, schema) for part in expression.meta.pop(schema=dict(schema)))
