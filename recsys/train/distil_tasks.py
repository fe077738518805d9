"""What the earlier ranker thinks of the examples, as answers to learn. Shapes: B = examples, T = tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.continual.distil import Distil
from recsys.models.ranker import RankingGraph

SURE = 1e-6  # a probability this near to 0 or 1 counts as this


@dataclass(frozen=True, eq=False)
class TaskDistillation:
    """`teacher`: the earlier model in its serving form, with a row for every id, on the device of training; `context`: the
    names of the context features; `is_class_T`: tasks whose label is 0 or 1, the others are not distilled."""

    spec: Distil
    teacher: RankingGraph
    context: Sequence[str]
    is_class_T: Tensor

    @torch.no_grad()
    def _answers(self, batch: Batch) -> Tensor:
        from recsys.evaluate.ranking import answers  # imports SciPy, which training does without

        with torch.autocast(batch.weight_B.device.type, enabled=False):
            return answers(self.teacher, batch, self.context)

    def __call__(self, logit_BT: Tensor, batch: Batch) -> Tensor:
        """loss_BT, times its weight; 0 for a task whose label is a number."""
        answer_BT = torch.where(self.is_class_T, self._answers(batch), 0.5)
        loss_BT = self.spec.of_tasks(logit_BT, torch.logit(answer_BT, eps=SURE))
        return self.spec.weight * torch.where(self.is_class_T, loss_BT, 0.0)
