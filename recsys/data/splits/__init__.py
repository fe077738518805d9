"""Which rows train, which select, which judge; one split a file.

`split(rows, cuts_ms=..., ties=...)` adds `split` (0 train, 1 valid, 2 test) to every row of some users, sorted by user, time
and row. Within a timeline the split of its events never falls: where it would in order of time, the rows come back in another
order (train, then valid, then test, each in order of time), and that order is the timeline's. `causal` says that, once the
moments are chosen, no later row changes the split or the place of an earlier one.
"""

from typing import Annotated

from pydantic import Field

from recsys.data.splits.files import GivenFiles
from recsys.data.splits.leave_one_out import LeaveOneOut
from recsys.data.splits.random import RandomPerUser
from recsys.data.splits.time import GlobalTime

Split = Annotated[GlobalTime | LeaveOneOut | RandomPerUser | GivenFiles, Field(discriminator="kind")]

__all__ = ["GivenFiles", "GlobalTime", "LeaveOneOut", "RandomPerUser", "Split"]
