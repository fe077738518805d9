"""Raw logs to a dataset: Polars verbs, LazyFrame -> LazyFrame, one a file. Nothing here can reach torch."""

from typing import Annotated

from pydantic import Field, model_validator

from recsys.data.filters import Filters
from recsys.data.source import Events, Table
from recsys.data.split import GlobalTime, LeaveOneOut
from recsys.spec import Spec

RESERVED = ("user", "item", "history")  # inputs every ranker has

Split = Annotated[GlobalTime | LeaveOneOut, Field(discriminator="kind")]


class Data(Spec):
    """How raw logs become a dataset."""

    events: Events
    users: Table | None = None
    items: Table | None = None
    split: Split = GlobalTime()
    filters: Filters = Filters()

    @model_validator(mode="after")
    def _names_are_free(self) -> "Data":
        taken = dict.fromkeys(RESERVED, "every model")
        owners = {"users.features": self.users, "items.features": self.items}
        features = {where: list(table.features) if table else [] for where, table in owners.items()}
        for where, names in {**features, "events.context": list(self.events.context)}.items():
            for name in names:
                if name in taken:
                    raise ValueError(f"{where} names {name!r}, which {taken[name]} has already: give it another name")
                taken[name] = where
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "Data":
        if self.users and self.users.title is not None:
            raise ValueError("users.title has no use: only items have a title")
        if isinstance(self.split, GlobalTime) and self.split.valid_from and not self.events.has_time:
            raise ValueError(
                "split.valid_from needs times of the calendar, which events.time does not give: use valid_share and test_share"
            )
        return self
