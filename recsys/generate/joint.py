"""Item vectors of content and of the retriever, side by side. Shapes: I = rows of the item table, D = width."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys.generate.collaborative import Collaborative
from recsys.generate.content import Content
from recsys.generate.items import Items, State, unit
from recsys.spec import Spec


class Joint(Spec):
    """Both vectors at length 1, then `share` of the squared length for content and the rest for the retriever's.

    So the cosine of two items is the weighted mean of both cosines. An item that only one side knows has that side alone.
    """

    kind: Literal["joint"] = "joint"
    reads_retriever: ClassVar[bool] = True
    content: Content = Content()
    share: float = Field(0.5, gt=0, lt=1, description="of content in the cosine of two items")

    def fit(self, items: Items, seed: int) -> State:
        return self.content.fit(items, seed)

    def __call__(self, items: Items, state: State) -> np.ndarray:
        """vector_ID of length 1; zeros for an item that neither side knows, and for the reserved rows."""
        told_ID, learned_ID = self.content(items, state), Collaborative()(items, {})
        return unit(np.hstack([told_ID * self.share**0.5, learned_ID * (1 - self.share) ** 0.5]))
