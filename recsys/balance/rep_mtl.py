"""Regularise which task cares about which part of the shared representation.

Shapes: T = tasks, B = examples, E = examples compared, Z = coordinates of an example's shared representation.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from recsys.balance.gradients import Losses, backward, loss_terms, weigh
from recsys.spec import Spec

FLOOR = 1e-2  # of the mean size: a smaller saliency counts for less, instead of having a gradient without bound
EPSILON = 1e-12


class RepMTL(Spec):
    """Penalties on the saliencies S_t = dL_t/dZ, each task's gradient at the shared representation Z of an example.

    Rep-MTL, Wang, Li and Xu 2025, https://arxiv.org/abs/2507.21049; no code of it is public. `entropy_weight` times the mean
    over the coordinates of the entropy of |S_t| / sum_k |S_k|: each coordinate is to belong to few tasks. `alignment_weight`
    times a contrastive loss: a task's affinity of coordinates, the Gram matrix of S_t, is to be more like the mean over tasks
    of its own example than like the mean of other examples. The penalties are differentiated through S_t, a second-order
    graph, and are skipped where there is one task. Z is what every model of this project has before its tasks part: the
    embedding vectors of the example, all joined, which are those members of `shared` that are not `nn.Parameter`s and have one
    row per example. A history that comes event by event has another number of rows and is left out.
    Differs from the paper: Z is a vector, so every coordinate is a position, with one channel, and the Gram matrix is the outer
    product of S_t with itself, never formed; the mean of other examples is a constant; a random part of the batch is
    compared; the default weights and the temperature are not the paper's, which could not be checked: try .001 to .1.
    """

    kind: Literal["rep_mtl"] = "rep_mtl"
    entropy_weight: float = Field(0.01, ge=0, description="0 switches this penalty off")
    alignment_weight: float = Field(0.01, ge=0, description="0 switches this penalty off")
    temperature: float = Field(0.1, gt=0, description="of the contrast; lower: the most alike other examples count more")
    compared: int = Field(256, ge=2, description="examples of a batch, drawn at random, that the contrast is among")

    def build(self, weights: Mapping[str, float]) -> nn.Module:
        return _RepMTL(self, weights)


class _RepMTL(nn.Module):
    def __init__(self, spec: RepMTL, weights: Mapping[str, float]):
        super().__init__()
        self.spec, self.weights = spec, dict(weights)

    def forward(
        self, losses: Losses, shared: Sequence[Tensor], own: Sequence[Tensor], generator: Generator
    ) -> dict[str, Tensor]:
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels cannot be differentiated twice
            loss_T = losses()
            weighed_T = weigh(loss_T, self.weights)
            penalties = self._penalties(weighed_T, representation(shared), generator)
            total = weighed_T.sum()
            if penalties is not None:
                total = total + self.spec.entropy_weight * penalties[0] + self.spec.alignment_weight * penalties[1]
            backward(total, [*shared, *own])
        terms = loss_terms(total, loss_T, list(self.weights))
        if penalties is not None:
            terms |= {"penalty/entropy": penalties[0].detach(), "penalty/alignment": penalties[1].detach()}
        return terms

    def _penalties(self, loss_T: Tensor, vectors: list[Tensor], generator: Generator) -> tuple[Tensor, Tensor] | None:
        """None where there is nothing to compare: one task, no graph, or neither penalty wanted."""
        wanted = self.spec.entropy_weight > 0 or self.spec.alignment_weight > 0
        if not wanted or len(loss_T) == 1 or not loss_T.requires_grad or not vectors:
            return None
        saliency_TBZ = saliency(loss_T, vectors)
        zero = saliency_TBZ.new_zeros(())
        entropy = saliency_entropy(saliency_TBZ) if self.spec.entropy_weight > 0 else zero
        if self.spec.alignment_weight == 0:
            return entropy, zero
        order_B = torch.randperm(saliency_TBZ.shape[1], generator=generator, device=generator.device)
        some_E = order_B[: self.spec.compared].to(saliency_TBZ.device)
        return entropy, misalignment(saliency_TBZ[:, some_E], self.spec.temperature)


def representation(shared: Sequence[Tensor]) -> list[Tensor]:
    """The embedding vectors with one row per example: those with the commonest number of rows."""
    vectors = [tensor for tensor in shared if not isinstance(tensor, nn.Parameter)]
    if not vectors:
        return []
    rows = Counter(len(tensor) for tensor in vectors).most_common(1)[0][0]
    return [tensor for tensor in vectors if len(tensor) == rows]


def saliency(loss_T: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """Return saliency_TBZ with its graph, times B: losses are means over examples, saliencies an example's own."""
    rows = len(vectors[0])
    found = [torch.autograd.grad(loss, vectors, create_graph=True, materialize_grads=True) for loss in loss_T.unbind()]
    return torch.stack([torch.cat([part.flatten(1) for part in of_task], dim=1) for of_task in found]) * rows


def saliency_entropy(saliency_TBZ: Tensor) -> Tensor:
    """Mean over coordinates of the entropy of the tasks' shares; a coordinate that no task cares about has none."""
    size_TBZ = saliency_TBZ.abs()
    total_BZ = size_TBZ.sum(0)
    share_TBZ = size_TBZ / total_BZ.clamp(min=_floor(total_BZ))
    return -(share_TBZ * (share_TBZ + EPSILON).log()).sum(0).mean()


def misalignment(saliency_TEZ: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each (task, example) against the mean affinity of every compared example, its own being the right one.

    Affinities are s s' of the unit saliency s, and the likeness of two matrices is their cosine: <s s', r r'> = (s . r)^2.
    """
    size_TE1 = saliency_TEZ.norm(dim=2, keepdim=True)
    live_TE = size_TE1[..., 0] > 0  # an example without the task's label has no saliency
    unit_TEZ = saliency_TEZ / size_TE1.clamp(min=_floor(size_TE1[live_TE]))
    anchor_TEZ = unit_TEZ.detach()
    norm_E = torch.einsum("tez,uez->etu", anchor_TEZ, anchor_TEZ).square().mean((1, 2)).sqrt()
    likeness_TEE = torch.stack([(unit_EZ @ anchor_TEZ.mT).square().mean(0) for unit_EZ in unit_TEZ]) / norm_E.clamp(min=EPSILON)
    logit_TEE = (likeness_TEE / temperature).masked_fill(~live_TE.any(0), -torch.inf)
    own_E = torch.arange(logit_TEE.shape[1], device=logit_TEE.device)
    if not live_TE.any():
        return saliency_TEZ.sum() * 0
    return functional.cross_entropy(logit_TEE[live_TE], own_E.expand(len(logit_TEE), -1)[live_TE])


def _floor(size: Tensor) -> Tensor:
    return (FLOOR * size.detach().mean()).nan_to_num().clamp(min=EPSILON)
