"""A term of the retriever's loss: what the earlier model thinks of some items, at every event of the windows.

Shapes: N = predictions, C = items compared, D = width, I = items.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from recsys.batch import Batch
from recsys.continual.distil import Distil
from recsys.heads.similarity import Similarity
from recsys.models.retriever import RetrievalGraph
from recsys.train.term import Asked, Scene


@dataclass(frozen=True, eq=False)
class Distillation:
    """`teacher`: the earlier model in its serving form, with a row for every item, on the device of training; `old_C`: the
    items that it was trained on. Items are drawn anew in each step. Events that are only read are compared, too."""

    spec: Distil
    teacher: RetrievalGraph
    similarity: Similarity
    old_C: Tensor
    name: str = "distil"

    @property
    def weight(self) -> float:
        return self.spec.weight

    def draw(self, batch: Batch, generator: Generator) -> Asked:
        own = Generator().manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        place_C = torch.randperm(len(self.old_C), generator=own)[: self.spec.items].sort().values
        item_C = self.old_C[place_C.to(self.old_C.device)]
        return Asked(items=item_C, extra=item_C)

    def __call__(self, scene: Scene, asked: Asked) -> Tensor:
        item_C: Tensor = asked.extra
        user_ND, item_CD = self.similarity(scene.user_ND, scene.item_CD[scene.row(item_C)])
        return self.spec((user_ND @ item_CD.T).float(), self._scores(scene.batch, item_C)).mean()

    @torch.no_grad()
    def _scores(self, batch: Batch, item_C: Tensor) -> Tensor:
        """teacher_NC."""
        window, teacher = batch.ids["history"], self.teacher
        read_N = torch.ones_like(window.value_N, dtype=torch.bool)
        read_N[window.length_B.cumsum(0) - 1] = False
        with torch.autocast(window.value_N.device.type, enabled=False):
            hidden_ND = teacher.encoder(teacher.item_ID[window.value_N[read_N]], window.length_B - 1, batch.time_N)
            scores: Tensor = teacher.for_user(hidden_ND) @ teacher.scored_ID[item_C].T
        return scores
