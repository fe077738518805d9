"""The generator as a policy over items.

Shapes: B = prompts, E = excluded items, G = candidates, T = codes of an item, D = width, C = items of the batch.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID
from recsys.generate.beam import beam_search, sample
from recsys.models.item_codes import ItemCodes
from recsys.train.job import Found


@dataclass(frozen=True)
class GeneratorActor:
    """State: hidden_BD after each prompt's last event."""

    codes: ItemCodes

    def look_ups(self, batch: Batch) -> dict[str, Ids]:
        return self.codes.of(_read(batch))

    def of_part(self, found: Found, batch: Batch, rows: Batch) -> Found:
        place_C = torch.searchsorted(_read(batch), _read(rows))
        return {name: vector[place_C] for name, vector in found.items()}

    def state(self, model: nn.Module, found: Found, batch: Batch) -> Tensor:
        history = batch.ids["history"]
        item_C = _read(batch)
        item_CD = model.item_vectors(found, self.codes.is_known(item_C))
        place_N = torch.searchsorted(item_C, history.value_N)
        last_B = (history.length_B + 1).cumsum(0) - 1
        time = batch.ids.get("time")
        time_M = torch.zeros(int(last_B[-1]) + 1, dtype=torch.int64, device=last_B.device) if time is None else time.value_N
        hidden_MD: Tensor = model(Ids(place_N, history.length_B), item_CD, time_M)
        return hidden_MD[last_B]

    def summary(self, state: Tensor) -> Tensor:
        return state

    def best(self, model: nn.Module, state: Tensor, exclude_BE: Tensor, count: int) -> Tensor:
        item_BG, _ = beam_search(model.decoder, model.trie, state, exclude_BE, count)
        return nn.functional.pad(item_BG, (0, count - item_BG.shape[1]))

    def sample(self, model: nn.Module, state: Tensor, exclude_BE: Tensor, count: int, generator: Generator) -> Tensor:
        return sample(model.decoder, model.trie, state, exclude_BE, count, generator)

    def log_probs(self, model: nn.Module, state: Tensor, item_BG: Tensor) -> Tensor:
        state_BGD = state.unsqueeze(1).expand(-1, item_BG.shape[1], -1)
        log_prob_BGT: Tensor = model.decoder.log_probs(model.trie, state_BGD, item_BG)
        return log_prob_BGT.masked_fill((item_BG < FIRST_ID).unsqueeze(-1), 0.0)


def _read(batch: Batch) -> Tensor:
    """item_C of the histories, ascending; row 0 where all are empty, since tables cannot be asked for nothing."""
    item_N: Tensor = batch.ids["history"].value_N
    return item_N.unique() if len(item_N) else item_N.new_zeros(1)
