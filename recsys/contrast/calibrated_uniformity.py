"""Uniformity that leaves similar items close. Shapes: V = pairs, D = width."""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from recsys.contrast.pairs import Pairs, products, unit
from recsys.contrast.spherical import spherical_bezier
from recsys.contrast.uniformity import UniformitySpec, uniformity


class CalibratedUniformity(UniformitySpec):
    """Alignment and uniformity in which items are pushed apart the less the more their descriptions agree: those of an item's
    modalities, fused along the sphere at a random place each time.

    CM3, Zhou et al. 2025, https://arxiv.org/abs/2508.01226. Differs from the paper and its code: modalities are the item
    tower's features; no graphs; the items are those of the batch's pairs (the code takes sampled negatives); similarity has no
    gradient unless `detach` is off, since raising it lowers the loss by itself.
    """

    kind: Literal["calibrated_uniformity"] = "calibrated_uniformity"
    reads_modalities: ClassVar[bool] = True
    min_similarity: float = Field(0.0, ge=-1, le=1, description="similarity below counts as this")
    max_similarity: float = Field(0.8, ge=-1, le=1, description="similarity above counts as this")
    concentration: float = Field(
        0.5, gt=0, description="of the Beta distribution that modalities are fused by; large: always half and half"
    )
    detach: bool = Field(True, description="the similarity of descriptions has no gradient")

    @model_validator(mode="after")
    def _range_is_one(self) -> "CalibratedUniformity":
        if self.min_similarity > self.max_similarity:
            raise ValueError(
                f"min_similarity {self.min_similarity} is more than max_similarity {self.max_similarity}: exchange them"
            )
        return self

    def __call__(self, pairs: Pairs) -> Tensor:
        assert pairs.modality_VD, "no descriptions of the items"
        first_VD, second_VD = unit(pairs.first_VD), unit(pairs.second_VD)
        first = uniformity(products(first_VD, first_VD), pairs.first_V, t=self.t)
        second = uniformity(products(second_VD, second_VD), pairs.second_V, t=self.t, similarity_VV=self._similarity(pairs))
        return (first_VD - second_VD).square().sum(1) + self.gamma * (first + second) / 2

    def _similarity(self, pairs: Pairs) -> Tensor:
        random = np.random.default_rng(pairs.seed)
        size = (len(pairs.modality_VD) - 1, len(pairs.second_V))
        share = torch.from_numpy(random.beta(self.concentration, self.concentration, size))
        fused_VD = spherical_bezier(pairs.modality_VD, list(share))
        similarity_VV = products(fused_VD, fused_VD).clamp(self.min_similarity, self.max_similarity)
        return similarity_VV.detach() if self.detach else similarity_VV
