"""How a model learns on from day to day. Read by `recsys daily`."""

from pydantic import Field

from recsys.continual.distil import Distil
from recsys.spec import Spec


class ContinualConfig(Spec):
    """How a model goes on from the one of the day before."""

    replay: float = Field(
        0.25, ge=0, lt=1, description="share of a warm day's training examples that are older than its news; 0: the news alone"
    )
    epochs: int = Field(2, ge=1, description="at most so many passes over the news and the replay")
    rewarm: float = Field(0.5, gt=0, le=1, description="share of the learning rates to which a warm day warms up again")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of a warm day's training in which the rates rise")
    distil: Distil | None = Field(
        None, description="what the earlier model answers is learned beside the log, such as {weight: 0.3}; null: not"
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="weight of the earlier model's parameters in the mean of both that is kept; 0: the new ones",
    )
    weight_align: bool = Field(
        False, description="rows of new items in the retriever's table get the mean length of old ones that are as frequent"
    )
    full_every_days: int | None = Field(
        7, ge=1, description="days after a training from scratch until the next one; null: only where it is needed"
    )
    full_on_drift: float | None = Field(
        0.25, gt=0, description="population stability index of a feature above which a day trains from scratch; null: never"
    )
