"""A score as the product of a user and an item vector. Shapes: N = predictions, C = items, D = width."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recsys.spec import Spec


class Dot(Spec):
    """The plain product; an item's length can carry its popularity."""

    kind: Literal["dot"] = "dot"

    def __call__(self, user_ND: Tensor, item_CD: Tensor) -> tuple[Tensor, Tensor]:
        """Return user_ND and item_CD with logits = user @ item.T."""
        return user_ND, item_CD


class Cosine(Spec):
    """The cosine over a temperature, as in Yi et al. 2019, https://doi.org/10.1145/3298689.3346996.

    Logits lie within 1 / temperature of zero. A vector that is all zero stays so and scores 0.
    """

    kind: Literal["cosine"] = "cosine"
    temperature: float = Field(0.05, gt=0, description="what the cosine is divided by; smaller is sharper")

    def __call__(self, user_ND: Tensor, item_CD: Tensor) -> tuple[Tensor, Tensor]:
        """Return user_ND, of length 1 / temperature, and item_CD, of length 1, with logits = user @ item.T."""
        return functional.normalize(user_ND, dim=-1) / self.temperature, functional.normalize(item_CD, dim=-1)


Similarity = Annotated[Dot | Cosine, Field(discriminator="kind")]
