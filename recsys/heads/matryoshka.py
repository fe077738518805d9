"""Vectors whose first numbers are vectors of their own, so that a narrower index can be served from the same training."""

from itertools import pairwise

from pydantic import Field, model_validator

from recsys.spec import Spec


class Matryoshka(Spec):
    """Matryoshka representation learning, Kusupati et al. 2022, https://arxiv.org/abs/2205.13147.

    The loss is the weighted sum of the losses at each width m, of the first m numbers of user and item vectors; a similarity
    that normalises does so after the cut. Differs from the paper: every width shares the item table (its MRL-E), and the full
    width is always one of them.
    """

    dims: tuple[int, ...] = Field((16, 32), min_length=1, description="widths, narrowest first; the full width is added")
    weights: tuple[float, ...] | None = Field(None, description="of each width's loss; null: 1 each, as in the paper")

    @model_validator(mode="after")
    def _dims_increase(self) -> "Matryoshka":
        if self.dims[0] < 1 or any(narrow >= wide for narrow, wide in pairwise(self.dims)):
            raise ValueError(f"dims {list(self.dims)} must be positive and increase: sort them and name each once")
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise ValueError(
                f"weights {list(self.weights)} must be as many as dims {list(self.dims)}: give one weight for each"
            )
        if self.weights is not None and min(self.weights) <= 0:
            raise ValueError(f"weights {list(self.weights)} must be positive: leave out a width that shall not count")
        return self

    def slices(self, width: int) -> list[tuple[int, float]]:
        """(m, weight) of every loss, the full width last; its weight is 1 unless `dims` names it."""
        if self.dims[-1] > width:
            raise ValueError(f"matryoshka.dims {list(self.dims)} exceed the encoder's dim {width}: name widths up to {width}")
        found = list(zip(self.dims, self.weights or [1.0] * len(self.dims), strict=True))
        return found if self.dims[-1] == width else [*found, (width, 1.0)]
