"""A sampled loss of a batch: the negatives of each row, and what its target comes to against them.

Shapes: N = predictions, S = negatives shared by the batch.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from recsys.heads import PairLoss, SampledLoss
from recsys.heads.accidental_hits import mask_hits
from recsys.sample.hard import Against, Hard, Standing


class Compared(NamedTuple):
    """One loss per row. `own_N` is for the parameters of the hard negatives' kind alone."""

    loss_N: Tensor
    own_N: Tensor | None = None
    terms: Mapping[str, Tensor] = {}


def compare(loss: SampledLoss, hard: Hard | None, standing: Standing, num_items: int) -> Compared:
    """Each row against the whole pool or, with `hard`, against what that makes of it."""
    against = _pool(standing) if hard is None else hard(standing)
    logits = standing.positive_N, against.negative_NK, standing.log_expected_N, against.log_expected
    if against.weight_NK is None:
        loss_N = loss(*logits, num_items)
    else:
        assert isinstance(loss, PairLoss), f"{loss.kind} has no pairs to weigh"
        loss_N = loss(*logits, num_items, against.weight_NK)
    return Compared(loss_N, against.own_N, against.terms)


def _pool(standing: Standing) -> Against:
    """Everything but a row's own target."""
    score_NS = (standing.user_ND @ standing.item_CD[standing.place_S].T).float()
    return Against(mask_hits(score_NS, standing.place_S, standing.place_N), standing.log_expected_S)
