"""Negatives from several distributions at once. Shapes: I = rows of the item table."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from recsys.sample.in_batch import InBatch
from recsys.sample.negatives import Sampler
from recsys.sample.popularity_negatives import PopularityNegatives
from recsys.sample.uniform import Uniform
from recsys.spec import Spec

Part = Annotated[Uniform | PopularityNegatives | InBatch, Field(discriminator="kind")]


class Mixed(Spec):
    """Mixed negative sampling, Yang et al. 2020, https://doi.org/10.1145/3366424.3386195: popular items to be told apart, and
    uniform ones so that no item goes untrained.

    Differs from the paper: any parts, each with its own count, and the correction is by the sum of what the parts expect.
    """

    kind: Literal["mixed"] = "mixed"
    parts: tuple[Part, ...] = Field(
        (Uniform(count=512), PopularityNegatives(count=512, exponent=1)), min_length=1, description="counts add up"
    )

    @property
    def drawn(self) -> int | None:
        """How many negatives a batch shares; None: the data decide."""
        counts = [part.drawn for part in self.parts]
        return None if None in counts else sum(count or 0 for count in counts)

    def build(self, train_count_I: Tensor) -> Sampler:
        return Sampler(tuple(source for part in self.parts for source in part.build(train_count_I).sources))
