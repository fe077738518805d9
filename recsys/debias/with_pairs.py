"""What the debiasers share that read pairs which nobody chose. Shapes: X = training examples."""

from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from recsys.debias.ips import Weighted


class WithPairs(Weighted):
    """Rows weighted as SNIPS weighs them, beside the batch's users and contexts with random items, whose labels are imputed."""

    reads_pairs: ClassVar[bool] = True
    only_classes: ClassVar[bool] = True  # labels are imputed as such

    pairs: int = Field(1, ge=1, description="pairs drawn for each row of the batch")

    @model_validator(mode="after")
    def _propensity_is_of_rows(self) -> Self:
        if self.propensity.of_positives:
            kind = type(self).model_fields["kind"].default
            raise ValueError(
                f"{kind} reads pairs that the log left out, and propensity {self.propensity.kind} is about clicks of rows that "
                "it has: choose kind ips or snips"
            )
        return self

    @property
    def pairs_per_row(self) -> int:
        return self.pairs

    def scale(self, propensity_X: np.ndarray) -> float:
        return 1 / float((1 / propensity_X).mean())
