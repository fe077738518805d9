"""Raw logs to a dataset: Polars verbs, LazyFrame -> LazyFrame, one a file. Nothing here can reach torch."""

from typing import Annotated

from pydantic import Field

from recsys.data.filters import Filters
from recsys.data.source import Events, Table
from recsys.data.split import GlobalTime, LeaveOneOut
from recsys.spec import Spec

Split = Annotated[GlobalTime | LeaveOneOut, Field(discriminator="kind")]


class Data(Spec):
    """How raw logs become a dataset."""

    events: Events
    users: Table | None = None
    items: Table | None = None
    split: Split = GlobalTime()
    filters: Filters = Filters()
