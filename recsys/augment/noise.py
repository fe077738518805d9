"""The history through noisy vectors as its view. Shapes: N = events of all histories, D = width."""

from typing import Literal, Self

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from recsys.augment.view import Histories, HistoryViewSpec, View, unchanged


class Noise(HistoryViewSpec):
    """Every vector that is read is moved a little, in the orthant it lies in.

    SimGCL, Yu et al. 2022, https://arxiv.org/abs/2112.08679. Differs from the paper: the noise has a share of the vector's
    own length instead of a fixed one, and is added to what a sequence encoder reads instead of to every layer of a graph.
    """

    kind: Literal["noise"] = "noise"
    share: float = Field(0.1, ge=0, le=1, description="length of the noise, as a share of the vector's")

    def __call__(self, histories: Histories, generator: Generator) -> View:
        seed = int(torch.randint(2**62, (1,), generator=generator))

        def change(vector_ND: Tensor) -> Tensor:
            own = Generator(vector_ND.device).manual_seed(seed)
            drawn_ND = torch.rand(vector_ND.shape, generator=own, device=vector_ND.device, dtype=vector_ND.dtype)
            length_N1 = self.share * vector_ND.detach().norm(dim=1, keepdim=True)
            return vector_ND + length_N1 * functional.normalize(drawn_ND, dim=1) * vector_ND.detach().sign()

        return unchanged(histories)._replace(change=change)

    @classmethod
    def neutral(cls) -> Self:
        return cls(share=0)
