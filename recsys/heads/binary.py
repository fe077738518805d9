"""Tasks with a yes-or-no label. Shapes: B = examples, T = tasks."""

import torch
from torch import Tensor
from torch.nn import functional


def binary_loss(logit_BT: Tensor, label_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each example and task, and whether its label exists. A label that is NaN gives loss 0 and False."""
    exists_BT = ~torch.isnan(label_BT)
    loss_BT = functional.binary_cross_entropy_with_logits(logit_BT, label_BT.nan_to_num(), reduction="none")
    return loss_BT * exists_BT, exists_BT
