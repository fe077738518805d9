"""Next item by a softmax over sampled items, for catalogues too large to score whole.

Shapes: N = predictions, S = negatives shared by the batch, C = N + S candidates, D = width, I = rows of the item table.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from recsys.columns import FIRST_ID
from recsys.spec import Spec


class SampledSoftmax(Spec):
    """Sampled softmax with logQ correction, Bengio and Senecal 2008; for retrieval Yi et al. 2019, https://doi.org/10.1145/3298689.3346996.

    Negatives come from a mixture of the training popularity and the uniform distribution, whose log probability is taken off
    their logits, so that the loss estimates the full softmax. A negative equal to a row's own target is masked.
    Differs from Yi et al.: explicit negatives instead of in-batch ones, so the target's logit needs no correction
    beyond its own candidate set (it is always present).
    """

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    num_negatives: int = Field(1024, ge=1)
    uniform_share: float = Field(0.5, ge=0, le=1, description="share of negatives drawn uniformly instead of by popularity")

    def candidates(self, target_N: Tensor, train_count_I: Tensor, generator: Generator) -> Tensor:
        """Targets first, then the shared negatives, drawn with replacement."""
        probability_I = self.probability(train_count_I).to(generator.device)
        drawn_S = torch.multinomial(probability_I, self.num_negatives, replacement=True, generator=generator)
        return torch.cat([target_N, drawn_S.to(target_N.device)])

    def probability(self, train_count_I: Tensor) -> Tensor:
        """The sampling distribution over item rows; never an id below FIRST_ID."""
        real_I = (torch.arange(len(train_count_I), device=train_count_I.device) >= FIRST_ID).float()
        popularity_I = train_count_I.float() * real_I
        uniform_I = real_I / real_I.sum()
        if popularity_I.sum() == 0:
            return uniform_I
        return self.uniform_share * uniform_I + (1 - self.uniform_share) * popularity_I / popularity_I.sum()

    def __call__(
        self, hidden_ND: Tensor, candidate_CD: Tensor, candidate_C: Tensor, target_N: Tensor, train_count_I: Tensor
    ) -> Tensor:
        """Return loss_N."""
        num_targets = len(target_N)
        negative_S = candidate_C[num_targets:]
        target_logit_N = (hidden_ND * candidate_CD[:num_targets]).sum(1)
        expected_S = self.probability(train_count_I)[negative_S] * self.num_negatives
        negative_logit_NS = hidden_ND @ candidate_CD[num_targets:].T - expected_S.log()
        negative_logit_NS = negative_logit_NS.masked_fill(negative_S == target_N[:, None], -torch.inf)
        return functional.softplus(torch.logsumexp(negative_logit_NS, dim=1) - target_logit_N)
