"""A further term of the retriever's loss: what it asks for before the look-up, and what it is given after it.

Shapes: N = predictions, C = rows of the item table that a batch needs, V = rows of content that a term asks for, D = width,
B = histories, M = tokens (each history's events and a start token).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Generator, Tensor

from recsys.batch import Batch, Ids

Change = Callable[[Tensor], Tensor]


class Asked(NamedTuple):
    """`items`: ids whose vectors it needs. `content`: rows of the tower's features to look up beside the items' own.

    `extra`: what else was drawn, for the term itself.
    """

    items: Tensor | None = None
    content: Mapping[str, Ids] = {}
    extra: Any = None


@dataclass(frozen=True)
class Scene:
    """A step of the retriever after its look-ups. Vectors have gradients."""

    batch: Batch
    target_N: Tensor  # item ids
    place_N: Tensor  # of each target in `item_CD` and `content_CD`
    user_ND: Tensor  # the state that predicts each target
    item_CD: Tensor
    content_CD: Mapping[str, Tensor]  # each feature's vectors of the same items
    content_VD: Mapping[str, Tensor]  # of `Asked.content`, by feature
    encode: Callable[[Ids, Tensor, Change | None], Tensor]
    """user_BD, the state after the last event of histories of item ids. `time_M`: milliseconds of each event and, last in each
    history, of the request. The change, where there is one, is made to the vectors that are read."""
    row: Callable[[Tensor], Tensor]  # where items that were asked for stand in `item_CD`


class Term(Protocol):
    """Families make views and losses; a term joins them."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...

    def draw(self, batch: Batch, generator: Generator) -> Asked:
        """The generator's numbers are the same on every process: take as many whatever the batch."""
        ...

    def __call__(self, scene: Scene, asked: Asked) -> Tensor:
        """The mean loss of what the term looks at, the same at every call in a step but for dropout."""
        ...
