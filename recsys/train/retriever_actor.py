"""A retriever as a policy: the softmax of its scores over the whole catalogue. Shapes: see `recsys.train.actor`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID
from recsys.models.item_codes import ItemCodes
from recsys.models.retriever import item_log_probs
from recsys.train.job import Found

Similarity = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Scores(NamedTuple):
    """The state of the prompts: what the encoder makes of them, and the score of every item, -inf for the reserved rows."""

    hidden_BD: Tensor
    score_BI: Tensor


@dataclass(frozen=True)
class RetrieverActor:
    """An item is one token. `dim`: numbers of the vectors that are scored, as when serving; None: all."""

    similarity: Similarity
    codes: ItemCodes
    dim: int | None = None

    def look_ups(self, batch: Batch) -> dict[str, Ids]:
        return self.codes.all()

    def of_part(self, found: Found, batch: Batch, rows: Batch) -> Found:
        return found  # those of every item

    def state(self, model: nn.Module, found: Found, batch: Batch) -> Scores:
        history = batch.ids["history"]
        item_ID = model.item_vectors(found, self.codes.known_I)
        last_B = (history.length_B + 1).cumsum(0) - 1
        time = batch.ids.get("time")
        time_M = torch.zeros(int(last_B[-1]) + 1, dtype=torch.int64, device=last_B.device) if time is None else time.value_N
        hidden_BD = model(history, item_ID, time_M)[last_B]
        user_BD, scored_ID = self.similarity(hidden_BD[:, : self.dim], item_ID[:, : self.dim])
        reserved_I = torch.arange(len(scored_ID), device=scored_ID.device) < FIRST_ID
        return Scores(hidden_BD, (user_BD @ scored_ID.T).masked_fill(reserved_I, -torch.inf))

    def summary(self, state: Scores) -> Tensor:
        return state.hidden_BD

    def best(self, model: nn.Module, state: Scores, exclude_BE: Tensor, count: int) -> Tensor:
        score_BI = _without(state.score_BI, exclude_BE)
        top = torch.topk(score_BI, min(count, score_BI.shape[1]), dim=1)
        item_BG = top.indices.where(torch.isfinite(top.values), 0)
        return nn.functional.pad(item_BG, (0, count - item_BG.shape[1]))

    def sample(self, model: nn.Module, state: Scores, exclude_BE: Tensor, count: int, generator: Generator) -> Tensor:
        """By the inverse of the distribution function in double precision, so that every device draws the same."""
        score_BI = _without(state.score_BI, exclude_BE).double()
        some_B = torch.isfinite(score_BI).any(1, keepdim=True)
        share_BI = (score_BI - score_BI.amax(1, keepdim=True).where(some_B, 0.0)).exp().cumsum(1)
        drawn_BG = torch.rand(len(score_BI), count, generator=generator, dtype=torch.float64).to(score_BI.device)
        total_B1 = share_BI[:, -1:].contiguous()
        item_BG = torch.searchsorted(share_BI, drawn_BG * total_B1, right=True)
        last_B1 = torch.searchsorted(share_BI, total_B1)  # a product that is rounded up to the total is the last item's
        return torch.minimum(item_BG, last_B1).where(some_B, 0)

    def log_probs(self, model: nn.Module, state: Scores, item_BG: Tensor) -> Tensor:
        return item_log_probs(state.score_BI, item_BG)


def _without(score_BI: Tensor, exclude_BE: Tensor) -> Tensor:
    return score_BI.detach().scatter(1, exclude_BE, -torch.inf)
