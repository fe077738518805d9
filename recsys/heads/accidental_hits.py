"""A shared negative may be a row's own target. Shapes: N = predictions, S = negatives shared by the batch."""

import torch
from torch import Tensor


def mask_hits(negative_NS: Tensor, item_S: Tensor, target_N: Tensor) -> Tensor:
    """Negatives' logits, -inf where the negative is the row's own target: such a cell has no share in any loss."""
    return negative_NS.masked_fill(item_S == target_N[:, None], -torch.inf)
