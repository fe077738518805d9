"""SQL in a config: a column of the source, or an expression over its columns."""

from typing import Annotated

import polars as pl
from polars.exceptions import PolarsError
from pydantic import AfterValidator, Field

from recsys.data.check import first_line


def _parses(expression: str) -> str:
    try:
        parsed = pl.sql_expr(expression)
    except (PolarsError, pl.exceptions.SQLInterfaceError) as error:
        raise ValueError(
            f"{expression!r} is not a column or a Polars SQL expression ({first_line(error)}); a column whose name is a word "
            "of SQL or holds spaces goes in double quotes, as in '\"user\"'"
        ) from error
    if not parsed.meta.eq(parsed.meta.undo_aliases()):
        raise ValueError(
            f"{expression!r} names its result, which has no use: a column whose name holds spaces goes in double quotes"
        )
    return expression


Sql = Annotated[str, AfterValidator(_parses)]  # over the source's own column names; see docs/own-data.md
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
