"""What a debiaser of the ranker is given: the rows of the batch and, where it asks for them, pairs that nobody chose.

Shapes: B = examples, P = pairs, T = tasks, V = width of a row's vectors side by side.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID
from recsys.debias.estimate import Estimate, Pairs, Rows
from recsys.models.item_codes import ItemCodes


@dataclass(frozen=True)
class Debiasing:
    """A debiaser's module, with what its spec said of the training rows."""

    module: nn.Module
    name: str  # for messages
    scale: float = 1.0
    floor: float = 0.0
    pairs_per_row: int = 0
    codes: ItemCodes | None = None  # with every feature of the items, where there are pairs

    def joined(self, batch: Batch, seed: int) -> Batch:
        """The look-ups of the rows and, after them, those of their users and contexts with items drawn uniformly, as often as
        there are pairs to a row."""
        assert self.codes is not None
        generator = Generator().manual_seed(seed)
        count = batch.rows * self.pairs_per_row
        item_P = torch.randint(FIRST_ID, self.codes.num_items, (count,), generator=generator)
        drawn = self.codes.of(item_P.to(batch.ids["item"].value_N.device))
        ids = {
            name: _after(rows, drawn[name]) if name in drawn else _repeated(rows, 1 + self.pairs_per_row)
            for name, rows in batch.ids.items()
        }
        return Batch(ids, behaviour_N=batch.behaviour_N.repeat(1 + self.pairs_per_row))

    def __call__(
        self, logit_BT: Tensor, loss_BT: Tensor, vector_BV: Tensor, batch: Batch, step: int, pairs: Pairs | None
    ) -> Estimate:
        missing_B = logit_BT.new_full((len(logit_BT),), torch.nan)
        rows = Rows(
            logit_BT=logit_BT, label_BT=batch.label_BT, loss_BT=loss_BT, vector_BV=vector_BV, step=step, pairs=pairs,
            propensity_B=batch.propensity_B if len(batch.propensity_B) else missing_B, scale=self.scale, floor=self.floor,
            arm_B=batch.arm_B if len(batch.arm_B) else None,
        )  # fmt: skip
        with torch.autocast(logit_BT.device.type, enabled=False):  # weights of half precision would be coarse
            return self.module(rows)


def side_by_side(model: nn.Module, found: Mapping[str, Tensor]) -> Tensor:
    """vector_BV: user, item and every feature, detached."""
    return torch.cat([found[name] for name in model.names], dim=1).detach().float()


def _after(first: Ids, second: Ids) -> Ids:
    return Ids(torch.cat([first.value_N, second.value_N]), torch.cat([first.length_B, second.length_B]))


def _repeated(rows: Ids, times: int) -> Ids:
    return Ids(rows.value_N.repeat(times), rows.length_B.repeat(times))
