"""Where the terms of the loss meet: each head's per-example loss, times its weights, reduced here and nowhere else.

Shapes: B = sequences or examples, N = predictions, one per event of the sequences, D = width, C = rows of the item table that a
batch needs, S = negatives, T = tasks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID
from recsys.denoise import Denoiser
from recsys.heads import RetrievalLoss
from recsys.heads.accidental_hits import mask_hits
from recsys.heads.binary import binary_loss
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.matryoshka import Matryoshka
from recsys.heads.regression import Regression
from recsys.heads.similarity import Similarity
from recsys.models.item_codes import ItemCodes
from recsys.sample.negatives import Negatives, Sampler
from recsys.train.job import Drawn, Found


class _Candidates(NamedTuple):
    """The rows of the item table that a batch needs in ascending order (None: all of them) and its shared negatives."""

    item_C: Tensor | None
    negatives: Negatives | None = None
    log_expected_C: Tensor | None = None  # of targets: how often the sample is expected to hold them


@dataclass(frozen=True)
class RetrievalLearner:
    """Every event of a window is predicted from the ones before it."""

    loss: RetrievalLoss
    similarity: Similarity
    matryoshka: Matryoshka | None
    sampler: Sampler | None  # of a sampled loss
    codes: ItemCodes
    denoise: Denoiser | None
    weights: Mapping[str, float]

    def draw(self, batch: Batch, generator: Generator) -> Drawn:
        target_N = batch.ids["history"].value_N
        if self.sampler is None:
            return Drawn(self.codes.all(), _Candidates(None))
        negatives = self.sampler(target_N, generator)
        item_C = torch.cat([target_N, negatives.item_S]).unique()
        log_expected_C = negatives.log_expected_N.new_zeros(len(item_C))
        log_expected_C[torch.searchsorted(item_C, target_N)] = negatives.log_expected_N
        return Drawn(self.codes.of(item_C), _Candidates(item_C, negatives, log_expected_C))

    def counts(self, batch: Batch) -> Tensor:
        events = batch.ids["history"].value_N
        return torch.full((1,), float(len(events)), device=events.device)

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        return ((found, part) for part in batch.split(sizes))  # the vectors are the items', whoever reads them

    def losses(
        self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        window, candidates = batch.ids["history"], drawn.extra
        target_N = window.value_N
        place_N = target_N if candidates.item_C is None else torch.searchsorted(candidates.item_C, target_N)
        read_N = torch.ones_like(target_N, dtype=torch.bool)
        read_N[window.length_B.cumsum(0) - 1] = False  # nothing follows the last event of a window
        item_CD = model.item_vectors(found, self.codes.is_known(candidates.item_C))
        hidden_ND = model(Ids(place_N[read_N], window.length_B - 1), item_CD, batch.time_N)  # the start token predicts too
        slices = self.matryoshka.slices(hidden_ND.shape[1]) if self.matryoshka else [(hidden_ND.shape[1], 1.0)]
        loss_N = sum(
            weight * self._loss(*self.similarity(hidden_ND[:, :dim], item_CD[:, :dim]), place_N, target_N, candidates)
            for dim, weight in slices
        )
        if self.denoise is None:
            return loss_N.sum()[None] / count_T, {}
        weight_N = self.denoise(loss_N.detach(), torch.ones_like(loss_N), step)  # every event is a positive
        loss = (loss_N * weight_N).sum() * (len(loss_N) / weight_N.sum().clamp(min=1e-12))
        return loss[None] / count_T, {"trusted_share": weight_N.mean()}

    def _loss(self, user_ND: Tensor, item_CD: Tensor, place_N: Tensor, target_N: Tensor, candidates: _Candidates) -> Tensor:
        if isinstance(self.loss, FullSoftmax):
            return self.loss(user_ND, item_CD, target_N, even=self.denoise is None)
        negatives = candidates.negatives
        assert candidates.item_C is not None
        assert negatives is not None
        assert candidates.log_expected_C is not None
        positive_N = (user_ND * item_CD[place_N]).sum(1).float()
        place_S = torch.searchsorted(candidates.item_C, negatives.item_S)
        negative_NS = mask_hits((user_ND @ item_CD[place_S].T).float(), negatives.item_S, target_N)
        return self.loss(
            positive_N,
            negative_NS,
            candidates.log_expected_C[place_N],
            negatives.log_expected_S,
            self.codes.num_items - FIRST_ID,
        )


@dataclass(frozen=True)
class RankingLearner:
    """Each task's loss of the examples that have the task's label."""

    weights: Mapping[str, float]
    numbers: tuple[str, ...]  # the tasks whose label is a number
    regression: Regression
    denoise: Denoiser | None

    def draw(self, batch: Batch, generator: Generator) -> Drawn:
        return Drawn(batch.ids)  # the model's tables name what they read

    def counts(self, batch: Batch) -> Tensor:
        return (batch.weight_B[:, None] * ~torch.isnan(batch.label_BT)).sum(0)

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        return model.parts(found, batch, sizes)

    def losses(
        self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logit_BT = model(found, batch)
        loss_BT, exists_BT = self._loss(logit_BT.float(), batch.label_BT)
        weight_BT = batch.weight_B[:, None] * exists_BT
        if self.denoise is not None:
            columns = zip(loss_BT.detach().T, batch.label_BT.T, strict=True)
            trust_BT = torch.stack([self.denoise(loss_B, label_B, step) for loss_B, label_B in columns], dim=1)
            kept_T = (weight_BT * trust_BT).sum(0) / weight_BT.sum(0).clamp(min=1e-12)
            weight_BT = weight_BT * trust_BT / kept_T.clamp(min=1e-12)
        return (loss_BT * weight_BT).sum(0) / count_T.clamp(min=1e-12), {}

    def _loss(self, logit_BT: Tensor, label_BT: Tensor) -> tuple[Tensor, Tensor]:
        if not self.numbers:
            return binary_loss(logit_BT, label_BT)
        is_number_T = torch.tensor([task in self.numbers for task in self.weights], device=logit_BT.device)
        of_number_BT, exists_BT = self.regression(logit_BT, label_BT)
        of_class_BT, _ = binary_loss(logit_BT, torch.where(is_number_T, torch.nan, label_BT))
        return torch.where(is_number_T, of_number_BT, of_class_BT), exists_BT
