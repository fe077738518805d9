"""Weight aligning: rows that are new get the lengths of old ones. Shapes: I = rows of the item table, D = width."""

import torch
from torch import Tensor


def weight_aligned(item_ID: Tensor, old_I: Tensor, new_I: Tensor, count_I: Tensor) -> Tensor:
    """The rows of `new_I` times gamma = mean ||old|| / mean ||new||, one gamma for each band of frequency.

    `count_I`: training events of an item; a band has those from 2^n to 2^(n+1) - 1. Without an old item of its band, or with
    no length of its own, a new one stays as it is.
    Zhao et al. 2020, "Maintaining Discrimination and Fairness in Class Incremental Learning",
    https://arxiv.org/abs/1911.07053. Differs from the paper: by band, since popular items' rows are longer than rare ones'; and
    the rows are read in histories as well, where they change too.
    """
    band_I = torch.log2(count_I.clamp(min=1).double()).floor().long()
    norm_I, factor_I = item_ID.norm(dim=1), torch.ones(len(item_ID), dtype=item_ID.dtype)
    for band in band_I[new_I].unique().tolist():
        old, new = old_I & (band_I == band), new_I & (band_I == band)
        if old.any() and norm_I[new].sum() > 0:
            factor_I[new] = norm_I[old].mean() / norm_I[new].mean()
    return item_ID * factor_I[:, None]
