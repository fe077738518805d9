"""Which negatives form a batch: distributions to draw items from, and negatives that the log itself holds."""

from typing import Annotated

from pydantic import Field

from recsys.sample.impressions import impressions
from recsys.sample.in_batch import InBatch
from recsys.sample.mixed import Mixed
from recsys.sample.popularity import Popularity
from recsys.sample.popularity_negatives import PopularityNegatives
from recsys.sample.table import ItemTable, Seen
from recsys.sample.uniform import Uniform

SharedNegatives = Annotated[Uniform | PopularityNegatives | InBatch | Mixed, Field(discriminator="kind")]

__all__ = [
    "InBatch", "ItemTable", "Mixed", "Popularity", "PopularityNegatives", "Seen", "SharedNegatives", "Uniform", "impressions",
]  # fmt: skip
