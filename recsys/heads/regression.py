"""Tasks whose label is a number. Shapes: B = examples, T = tasks."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recsys.spec import Spec


class Regression(Spec):
    """The squared error, or Huber's loss, 1964, https://doi.org/10.1214/aoms/1177703732: half the squared error up to `delta`,
    linear beyond, so that a few huge values (a film watched all night) do not decide everything."""

    kind: Literal["regression"] = "regression"
    loss: Literal["huber", "squared"] = "huber"
    delta: float = Field(1.0, gt=0, description="error, in units of the label, from which on huber grows linearly")

    def __call__(self, predicted_BT: Tensor, label_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each example and task, and whether its label exists. A label that is NaN gives loss 0 and False."""
        exists_BT = ~torch.isnan(label_BT)
        label_BT = torch.where(exists_BT, label_BT, predicted_BT.detach())  # an error of 0, and no gradient
        if self.loss == "squared":
            loss_BT = functional.mse_loss(predicted_BT, label_BT, reduction="none")
        else:
            loss_BT = functional.huber_loss(predicted_BT, label_BT, reduction="none", delta=self.delta)
        return loss_BT, exists_BT
