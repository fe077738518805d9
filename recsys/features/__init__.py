"""What was known of a user, an item or a pair just before an event: counts, rates, recency, place in the session.

The same functions compute them for the rows of a log and for the candidates of a request; nothing here needs Polars or torch.
"""

from typing import Annotated

from pydantic import Field

from recsys.features.compute import Standing, compute, entities, look_up, needs
from recsys.features.count import Count
from recsys.features.frame import Frame
from recsys.features.rate import Rate
from recsys.features.recency import Recency
from recsys.features.session_position import SessionPosition
from recsys.features.state import State

PointInTime = Annotated[Count | Rate | Recency | SessionPosition, Field(discriminator="kind")]

__all__ = [
    "Count",
    "Frame",
    "PointInTime",
    "Rate",
    "Recency",
    "SessionPosition",
    "Standing",
    "State",
    "compute",
    "entities",
    "look_up",
    "needs",
]
