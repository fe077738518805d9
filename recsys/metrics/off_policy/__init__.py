"""What another policy would have earned, by a log of actions whose chances are known."""

from typing import Annotated

from pydantic import Field

from recsys.metrics.off_policy.direct import Direct
from recsys.metrics.off_policy.doubly_robust import DoublyRobust
from recsys.metrics.off_policy.ips import IPS
from recsys.metrics.off_policy.logged import Logged
from recsys.metrics.off_policy.snips import SNIPS
from recsys.metrics.off_policy.support import Support, support
from recsys.metrics.off_policy.switch import Switch

Estimator = Annotated[IPS | SNIPS | Direct | DoublyRobust | Switch, Field(discriminator="kind")]

__all__ = ["IPS", "SNIPS", "Direct", "DoublyRobust", "Estimator", "Logged", "Support", "Switch", "support"]
