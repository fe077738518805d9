"""Where the terms of the ranker's loss meet: each task's per-example loss, times its weights, reduced here and nowhere else.

Shapes: B = examples, T = tasks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch
from recsys.debias.estimate import Pairs
from recsys.heads.binary import binary_loss
from recsys.heads.regression import Regression
from recsys.train.debiasing import Debiasing, side_by_side
from recsys.train.distil_tasks import TaskDistillation
from recsys.train.job import Drawn, Found, Outcome
from recsys.train.weights import Passes, Trust, added, checked, context, trust, trust_terms


class _Drawn(NamedTuple):
    """A seed of the step and, where a debiaser reads pairs, the look-ups of the rows with those of the pairs."""

    seed: int
    joined: Batch | None = None


@dataclass(frozen=True)
class RankingLearner:
    """Each task's loss of the examples that have the task's label."""

    weights: Mapping[str, float]
    numbers: tuple[str, ...]  # the tasks whose label is a number
    regression: Regression
    denoise: tuple[Trust, ...] = ()  # one for each task
    name: str = ""  # of the denoiser, for messages
    debias: Debiasing | None = None
    distil: TaskDistillation | None = None  # of the examples that have a label, whatever they are trusted

    def draw(self, batch: Batch, generator: Generator) -> Drawn:
        pairs = self.debias is not None and self.debias.pairs_per_row > 0
        seed = int(torch.randint(2**62, (1,), generator=generator)) if self.denoise or pairs else 0
        if self.debias is None or not pairs:
            return Drawn(batch.ids, _Drawn(seed))  # the model's tables name what they read
        joined = self.debias.joined(batch, seed)
        return Drawn(joined.ids, _Drawn(seed, joined))

    def counts(self, batch: Batch) -> Tensor:
        return (batch.weight_B[:, None] * ~torch.isnan(batch.label_BT)).sum(0)

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        return model.parts(found, batch, sizes)

    def losses(self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int) -> Outcome:
        extra: _Drawn = drawn.extra
        pairs: tuple[Found, Batch] | None = None
        if extra.joined is not None:
            sizes = [batch.rows, extra.joined.rows - batch.rows]
            (found, _), pairs = model.parts(found, extra.joined, sizes)
        logit_BT = model(found, batch).float()
        loss_BT, exists_BT = self._loss(logit_BT, batch.label_BT)
        weight_BT = labelled_BT = batch.weight_B[:, None] * exists_BT
        owns: list[Tensor | None] = []
        estimate, terms = None, dict[str, Tensor]()
        if self.debias is not None:
            even = Pairs(model(*pairs).float(), side_by_side(model, pairs[0])) if pairs else None
            estimate = self.debias(logit_BT, loss_BT, side_by_side(model, found), batch, step, even)
            owns.append(estimate.own)
            terms |= {name: value.detach() for name, value in estimate.terms.items()}
        share_T = weight_BT.sum(0) / count_T.clamp(min=1e-12)
        if self.debias is not None and estimate is not None:
            weight_BT = weight_BT * checked(estimate.weight_BT, self.debias.name)
        if self.denoise:
            passes = [
                Passes(partial(self._loss_of, t, model, batch), model, found, extra.seed) for t in range(len(self.weights))
            ]
            trust_BT, of_tasks = self._trust(loss_BT, passes, batch, step)
            owns, terms = owns + of_tasks, terms | trust_terms(trust_BT.flatten())
            kept_T = (weight_BT * trust_BT).sum(0) / weight_BT.sum(0).clamp(min=1e-12)  # trust moves weight, and adds none
            weight_BT = weight_BT * trust_BT / kept_T.clamp(min=1e-12)
        kept_BT = loss_BT if estimate is None else estimate.loss_BT
        loss_T = (kept_BT * weight_BT).sum(0) / count_T.clamp(min=1e-12)
        if estimate is not None and estimate.loss_PT is not None:
            loss_T = loss_T + estimate.loss_PT.mean(0) * share_T
        if self.distil is not None:
            distilled_T = (self.distil(logit_BT, batch) * labelled_BT).sum(0) / count_T.clamp(min=1e-12)
            loss_T, terms = loss_T + distilled_T, terms | {"distil": distilled_T.detach().sum()}
        return Outcome(loss_T, terms, added(owns, share_T.mean()))

    def _trust(self, loss_BT: Tensor, passes: list[Passes], batch: Batch, step: int) -> tuple[Tensor, list[Tensor | None]]:
        """trust_BT, and the losses of denoisers that learn."""
        found = []
        for task, denoise in enumerate(self.denoise):
            loss_B, label_B = loss_BT[:, task], batch.label_BT[:, task]
            here = context(passes[task], loss_B, step=step, group_B=batch.ids["user"].value_N)
            found.append(trust(denoise, self.name, loss_B, label_B, here))
        return torch.stack([trust_B for trust_B, _ in found], dim=1), [own for _, own in found]

    def _loss_of(self, task: int, model: nn.Module, batch: Batch, found: Found) -> Tensor:
        return self._loss(model(found, batch).float(), batch.label_BT)[0][:, task]

    def _loss(self, logit_BT: Tensor, label_BT: Tensor) -> tuple[Tensor, Tensor]:
        if not self.numbers:
            return binary_loss(logit_BT, label_BT)
        is_number_T = torch.tensor([task in self.numbers for task in self.weights], device=logit_BT.device)
        of_number_BT, exists_BT = self.regression(logit_BT, label_BT)
        of_class_BT, _ = binary_loss(logit_BT, torch.where(is_number_T, torch.nan, label_BT))
        return torch.where(is_number_T, of_number_BT, of_class_BT), exists_BT
