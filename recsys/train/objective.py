"""Where the terms of the loss meet: each head's per-example loss, times its weights, reduced here and nowhere else.

Shapes: B = sequences or examples, N = predictions, one per event of the sequences, D = width, C = candidates, T = tasks.
"""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.denoise import Denoiser
from recsys.heads import RetrievalLoss
from recsys.heads.binary import binary_loss


def retrieval_objective(
    model: nn.Module, batch: Batch, step: int, *, loss: RetrievalLoss, denoise: Denoiser | None, train_count_I: Tensor,
    generator: Generator,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Every event of a window is predicted from the ones before it. Return the loss and its terms by name."""
    window = batch.ids["history"]
    target_N, train_count_I = window.value_N, train_count_I.to(window.value_N.device)
    read_N = torch.ones_like(target_N, dtype=torch.bool)
    read_N[window.length_B.cumsum(0) - 1] = False  # nothing follows the last event of a window
    candidate_C = loss.candidates(target_N, train_count_I, generator)
    hidden_ND, candidate_CD = model(Ids(target_N[read_N], window.length_B - 1), candidate_C)  # the start token predicts too
    loss_N = loss(hidden_ND, candidate_CD, candidate_C, target_N, train_count_I)
    if denoise is None:
        return loss_N.mean(), {}
    weight_N = denoise(loss_N.detach(), torch.ones_like(loss_N), step)  # every event is a positive
    return (loss_N * weight_N).sum() / weight_N.sum(), {"trusted_share": weight_N.mean()}


def ranking_objective(
    model: nn.Module, batch: Batch, step: int, *, task_weights: Mapping[str, float], denoise: Denoiser | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum over tasks of the mean loss of the examples that have the task's label."""
    loss_BT, exists_BT = binary_loss(model(batch.ids), batch.label_BT)
    weight_BT = batch.weight_B[:, None] * exists_BT
    if denoise is not None:
        columns = zip(loss_BT.detach().T, batch.label_BT.T, strict=True)
        weight_BT = weight_BT * torch.stack([denoise(loss_B, label_B, step) for loss_B, label_B in columns], dim=1)
    loss_T = (loss_BT * weight_BT).sum(0) / weight_BT.sum(0).clamp(min=1e-12)
    total = (loss_T * loss_T.new_tensor(list(task_weights.values()))).sum()
    terms = {f"loss/{task}": loss_T[i].detach() for i, task in enumerate(task_weights)}
    return total, terms
