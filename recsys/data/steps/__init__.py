"""Steps on one user's rows at a time: LazyFrame -> LazyFrame, one a file, run in the order of the config.

Rows come sorted by user, time and row and stay so. After `sessions` every session counts as a user of its own. `causal` says
that no later row changes what happens to an earlier one, so that a day may be appended without building anew. Only timeline
events are counted and dropped unless a step says otherwise; a dropped row is gone as an example too, with all its labels.
"""

from typing import Annotated

from pydantic import Field

from recsys.data.steps.bots import Bots
from recsys.data.steps.burst import Burst
from recsys.data.steps.first_touch import FirstTouch
from recsys.data.steps.last_touch import LastTouch
from recsys.data.steps.sessions import Sessions

Step = Annotated[FirstTouch | LastTouch | Burst | Bots | Sessions, Field(discriminator="kind")]

__all__ = ["Bots", "Burst", "FirstTouch", "LastTouch", "Sessions", "Step"]
