"""The generator's supervised loss: the codes of the next item, each given the true ones before it.

Shapes: N = predictions, one per event of the sequences, D = width, C = items of the batch, T = levels of the ids.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.models.item_codes import ItemCodes
from recsys.train.job import Drawn, Found, Outcome

NEXT_ITEM = "next_item"


@dataclass(frozen=True)
class GenerationLearner:
    """Every event of a window is predicted from the ones before it: -log p(item), which is the sum over its codes."""

    codes: ItemCodes

    @property
    def weights(self) -> Mapping[str, float]:
        return {NEXT_ITEM: 1.0}

    def draw(self, batch: Batch, generator: Generator) -> Drawn:
        item_C = batch.ids["history"].value_N.unique()
        return Drawn(self.codes.of(item_C), item_C)

    def counts(self, batch: Batch) -> Tensor:
        return batch.predicted_N.sum().unsqueeze(0)

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        return ((found, part) for part in batch.split(sizes))  # the vectors are the items', whoever reads them

    def losses(self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int) -> Outcome:
        window, item_C = batch.ids["history"], drawn.extra
        read_N = torch.ones_like(window.value_N, dtype=torch.bool)
        read_N[window.length_B.cumsum(0) - 1] = False  # nothing follows the last event of a window
        item_CD = model.item_vectors(found, self.codes.is_known(item_C))
        place_N = torch.searchsorted(item_C, window.value_N[read_N])
        hidden_ND = model(Ids(place_N, window.length_B - 1), item_CD, batch.time_N)  # the start token predicts too
        loss_NT = -model.decoder.log_probs(model.trie, hidden_ND, window.value_N)
        terms = {f"loss_of_code/{level}": loss_N.mean().detach() for level, loss_N in enumerate(loss_NT.unbind(1))}
        if len(batch.target_N):
            loss_NT = loss_NT * batch.predicted_N[:, None]
        return Outcome(loss_NT.sum().unsqueeze(0) / count_T, terms)
