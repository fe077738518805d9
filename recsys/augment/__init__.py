"""Views of histories and of items.

Of histories: (histories, generator) -> a view of each. Of items: (mutual information, generator) -> which features one view
lacks and the other one has.
"""

from typing import Annotated

from pydantic import Field

from recsys.augment.correlated import Correlated
from recsys.augment.crop import Crop
from recsys.augment.dropout import Dropout
from recsys.augment.mask import Mask
from recsys.augment.noise import Noise
from recsys.augment.random_mask import RandomMask
from recsys.augment.reorder import Reorder
from recsys.augment.substitute import Substitute

HistoryView = Annotated[Crop | Mask | Reorder | Substitute | Dropout | Noise, Field(discriminator="kind")]
FeatureMask = Annotated[Correlated | RandomMask, Field(discriminator="kind")]
