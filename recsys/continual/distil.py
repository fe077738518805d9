"""Distillation from the model that a warm day begins from.

Shapes: N = predictions, C = items that both models score, B = examples, T = tasks.
"""

from pydantic import Field
from torch import Tensor, nn

from recsys.spec import Spec


class Distil(Spec):
    """The softened answers of the earlier model are answers to learn, beside those of the log.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531; continually: Li and Hoiem 2016, "Learning without Forgetting",
    https://arxiv.org/abs/1606.09282. Differs from the papers: the log's loss keeps its weight of 1, so that the share of the
    distillation is weight / (1 + weight); there is no factor temperature^2; a retriever is compared on items that are drawn.
    """

    weight: float = Field(0.3, gt=0, description="of the term in the loss")
    temperature: float = Field(2.0, gt=0, description="by which the scores of both models are divided")
    items: int = Field(512, ge=2, description="items of a step on which the retriever's scores are compared")

    def __call__(self, score_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        """loss_N, the cross-entropy -sum_c softmax(teacher / T)_c log softmax(score / T)_c."""
        target_NC = (teacher_NC / self.temperature).softmax(1)
        return -(target_NC * (score_NC / self.temperature).log_softmax(1)).sum(1)

    def of_tasks(self, logit_BT: Tensor, teacher_BT: Tensor) -> Tensor:
        """loss_BT, the cross-entropy of sigmoids of logits, each divided by the temperature."""
        target_BT = (teacher_BT / self.temperature).sigmoid()
        return nn.functional.binary_cross_entropy_with_logits(logit_BT / self.temperature, target_BT, reduction="none")
