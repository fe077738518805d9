"""What a bundle's manifest and its reference say, checked."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recsys.features import PointInTime
from recsys.serving_config import ServingConfig
from recsys.value_formula import ValueFormula


class Histogram(BaseModel):
    """`share[i]` of the numbers lay above `edges[i - 1]` and up to `edges[i]`; the first and the last bin are open."""

    model_config = ConfigDict(frozen=True)
    edges: tuple[float, ...]
    share: tuple[float, ...]


class Reference(Histogram):
    """Final values of the items of lists made at export, and beside them each task's probabilities."""

    tasks: dict[str, Histogram]


class IndexFacts(BaseModel):
    """Of the index that stands for exact retrieval."""

    model_config = ConfigDict(frozen=True)
    nprobe: int = Field(ge=1)  # clusters looked through
    clusters: int
    recall: float  # share of the exact candidates that it found at export


class ModelFacts(BaseModel):
    """What the manifest says about the graphs."""

    model_config = ConfigDict(frozen=True)
    max_history: int = Field(ge=1)
    num_candidates: int = Field(ge=1)
    num_items: int = Field(ge=3)  # rows, padding and unknown included
    candidates: Literal["retrieval", "generation"] = "retrieval"  # the graph that is asked first
    tasks: tuple[str, ...]
    value: dict[str, float] | str  # weight of each task, or a formula
    context: dict[str, tuple[str, ...]]  # feature -> its values, the first one having code FIRST_ID
    serving: ServingConfig = ServingConfig()  # the config's section
    category: dict[str, tuple[str, ...]] = {}  # the item feature of categories -> its values, coded from FIRST_ID on
    tasks_in_history: tuple[str, ...] | None = None  # tasks that an entry of a history showed in training; None: all of them
    segment: str | None = None  # the user feature of segments
    segment_values: tuple[str, ...] = ()  # its values, coded from FIRST_ID on
    features: dict[str, PointInTime] = {}  # the point-in-time features of the ranking graph, in its order
    index: IndexFacts | None = None  # where retrieval does not score all items

    @model_validator(mode="after")
    def _value_can_be_used(self) -> Self:
        if self.tasks:
            ValueFormula(self.value, self.tasks)
        return self
