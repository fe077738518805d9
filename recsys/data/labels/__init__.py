"""Labels that are more than a column of the log, one kind a file.

The ingest reads the numbers a label needs (`values`, SQL over the source's columns) into `value_<task>` columns: 32-bit
floats, truth values as 0 and 1, NaN where null. A label is worked out from them later: `spec(rows, task, end_ms=...,
fitted=...)` adds `label_<task>`, NaN where the label does not exist. `causal` says that no later row changes it. Where
`is_fitted`, `fitted` is `Histogram.merge(spec.fit(rows, task) for the training rows of every shard)`, else None.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from recsys.data.labels.at_least import AtLeast
from recsys.data.labels.histogram import Histogram
from recsys.data.labels.quantile import Quantile
from recsys.data.labels.value import value
from recsys.data.labels.within import Within, horizon_ms
from recsys.data.sql import Sql

LabelSpec = Annotated[Within | AtLeast | Quantile, Field(discriminator="kind")]

__all__ = ["AtLeast", "Histogram", "LabelSpec", "Quantile", "Within", "horizon_ms", "value", "value_columns"]


def value_columns(labels: Mapping[str, Sql | LabelSpec]) -> dict[str, Sql]:
    """Every value column that the labels need, with its SQL. Raises ValueError where two tasks would share one."""
    owner: dict[str, str] = {}
    columns: dict[str, Sql] = {}
    for task, spec in labels.items():
        for suffix, text in ({} if isinstance(spec, str) else spec.values).items():
            name = value(task, suffix)
            if name in owner:
                raise ValueError(f"labels {owner[name]!r} and {task!r} would both be read into {name}: rename one of them")
            owner[name], columns[name] = task, text
    return columns
