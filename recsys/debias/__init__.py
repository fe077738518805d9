"""Learning for all pairs from a log that somebody's choice made: propensities, and losses that use them."""

from typing import Annotated

from pydantic import Field

from recsys.debias.causal_balancing import CausalBalancing
from recsys.debias.doubly_robust import DoublyRobust
from recsys.debias.interference import Interference
from recsys.debias.ips import IPS
from recsys.debias.propensities import Propensity as Propensity
from recsys.debias.snips import SNIPS

Debias = Annotated[IPS | SNIPS | DoublyRobust | CausalBalancing | Interference, Field(discriminator="kind")]
