"""Which negatives form a batch: distributions to draw items from, and negatives that the log itself holds."""

from typing import Annotated

from pydantic import Field

from recsys.sample.catalogue import Catalogue
from recsys.sample.exposure import exposure
from recsys.sample.hard_coupled import Coupled
from recsys.sample.hard_dynamic import Dynamic
from recsys.sample.hard_stable import Stable
from recsys.sample.impressions import impressions
from recsys.sample.in_batch import InBatch
from recsys.sample.mixed import Mixed
from recsys.sample.popularity import Popularity
from recsys.sample.popularity_negatives import PopularityNegatives
from recsys.sample.table import ItemTable, Seen
from recsys.sample.uniform import Uniform

SharedNegatives = Annotated[Uniform | PopularityNegatives | InBatch | Mixed | Catalogue, Field(discriminator="kind")]
HardNegatives = Annotated[Dynamic | Stable | Coupled, Field(discriminator="kind")]

__all__ = [
    "Catalogue", "Coupled", "Dynamic", "HardNegatives", "InBatch", "ItemTable", "Mixed", "Popularity", "PopularityNegatives",
    "Seen", "SharedNegatives", "Stable", "Uniform", "exposure", "impressions",
]  # fmt: skip
