"""Which negatives form a batch: distributions to draw items from, and negatives that the log itself holds. Needs numpy only."""

from recsys.sample.impressions import impressions
from recsys.sample.popularity import Popularity
from recsys.sample.table import ItemTable, Seen

__all__ = ["ItemTable", "Popularity", "Seen", "impressions"]
