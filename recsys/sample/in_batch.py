"""The targets of the other rows. Shapes: N = predictions, S = negatives, I = rows of the item table, X = any items."""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from recsys.columns import FIRST_ID
from recsys.sample.negatives import Sampler
from recsys.spec import Spec


class InBatch(Spec):
    """In-batch negatives, Yi et al. 2019, https://doi.org/10.1145/3298689.3346996: drawn as training has them, at no look-up.

    A row takes the other rows' targets; its own are accidental hits, which the loss masks. So of N targets N - 1 are draws, and
    item i is expected (N - 1) * p(i) times, p being its share of the training events; with `count`, that many targets at
    random, the same times count / N. Differs from the paper: p is counted beforehand instead of estimated from the stream.
    """

    kind: Literal["in_batch"] = "in_batch"
    count: int | None = Field(None, ge=1, description="at most so many of the batch's targets; null: all")

    @property
    def drawn(self) -> int | None:
        """How many negatives a batch shares; None: the data decide."""
        return self.count

    def build(self, train_count_I: Tensor) -> Sampler:
        count_I = train_count_I.double().clamp(min=1)  # what stands in a batch was there at least once
        count_I[:FIRST_ID] = 0
        return Sampler((_InBatch(self.count, count_I / count_I.sum()),))


@dataclass(frozen=True, eq=False)
class _InBatch:
    count: int | None
    probability_I: Tensor

    def draw(self, target_N: Tensor, generator: Generator) -> Tensor:
        real_N = target_N[target_N >= FIRST_ID]
        if self.count is None or self.count >= len(real_N):
            return real_N
        order_N = torch.randperm(len(real_N), generator=generator, device=generator.device)
        return real_N[order_N[: self.count].to(target_N.device)]

    def expected(self, item_X: Tensor, target_N: Tensor) -> Tensor:
        num_targets = int((target_N >= FIRST_ID).sum())
        drawn = num_targets if self.count is None else min(self.count, num_targets)
        others = drawn * max(1, num_targets - 1) / max(1, num_targets)  # a lone row has only hits; 1 keeps the log finite
        return others * self.probability_I[item_X.to(self.probability_I.device)].to(target_N.device)
