"""Raw logs to a dataset: Polars verbs, LazyFrame -> LazyFrame, one a file. Nothing here can reach torch."""

from pydantic import Field, model_validator

from recsys.data.filters import Filters
from recsys.data.labels import Within
from recsys.data.source import Events, Table
from recsys.data.splits import GlobalTime, Split
from recsys.data.sql import Name
from recsys.data.steps import Step
from recsys.features import PointInTime, needs
from recsys.spec import Spec

RESERVED = ("user", "item", "history")  # inputs every ranker has


class Data(Spec):
    """How raw logs become a dataset."""

    events: Events
    users: Table | None = None
    items: Table | None = None
    split: Split = GlobalTime()
    filters: Filters = Filters()
    steps: list[Step] = Field(default_factory=list, description="what happens to each user's rows, in this order")
    features: dict[Name, PointInTime] = Field(default_factory=dict, description="numbers known just before each row")
    shards: int | None = Field(None, ge=1, le=4096, description="parts by user that go through memory one by one")

    @property
    def looks_ahead(self) -> str:
        """The first part of the config by which a new row can change an old one, empty where there is none."""
        ahead = {
            f"split.kind {self.split.kind}": not self.split.causal,
            "filters.min_user_events": self.filters.min_user_events > 1,
            "filters.min_item_events": self.filters.min_item_events > 1,
            "steps": bool(self.steps),
            f"events.conflicts {self.events.conflicts}": self.events.conflicts in ("last", "quarantine"),
            **{f"labels.{task}": not spec.causal for task, spec in self.events.made_labels.items()},
        }
        return next((name for name, is_ahead in ahead.items() if is_ahead), "")

    @property
    def can_grow(self) -> bool:
        """Whether new arrival units can be appended."""
        return self.events.arrives != "together" and not self.looks_ahead

    @model_validator(mode="after")
    def _names_are_free(self) -> "Data":
        taken = dict.fromkeys(RESERVED, "every model")
        owners = {"users.features": self.users, "items.features": self.items}
        named = {where: list(table.features) if table else [] for where, table in owners.items()}
        for where, names in {**named, "events.context": list(self.events.context), "features": list(self.features)}.items():
            for name in names:
                if name in taken:
                    raise ValueError(f"{where} names {name!r}, which {taken[name]} has already: give it another name")
                taken[name] = where
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "Data":
        if self.users and self.users.title is not None:
            raise ValueError("users.title has no use: only items have a title")
        if isinstance(self.split, GlobalTime) and not self.events.has_time:
            for field in ("valid_from", "valid_days"):
                if getattr(self.split, field) is not None:
                    raise ValueError(
                        f"split.{field} needs times of the calendar, which events.time does not give: "
                        "use valid_share and test_share"
                    )
        if self.events.arrives != "together" and not self.events.has_time:
            raise ValueError("events.arrives needs times of the calendar, which events.time does not give: leave it out")
        return self

    @model_validator(mode="after")
    def _features_are_known(self) -> "Data":
        keys, flags = needs(self.features)
        tables = [name for table in (self.users, self.items) if table for name in table.features]
        for name in keys:
            if name not in ("user", "item", *self.events.context, *tables):
                raise ValueError(f"features: by {name!r} is no context and no user or item feature: name one, or user or item")
        for name in flags:
            made = self.events.made_labels.get(name)
            if isinstance(made, Within) or (made is not None and made.is_fitted):
                raise ValueError(f"features: event {name!r} is a label that looks ahead, so its count would tell the future")
            if name not in ("history", *self.events.labels):
                raise ValueError(f"features: event {name!r} is no task: name one of {[*self.events.labels]}, history or all")
        return self
