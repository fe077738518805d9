"""LoReUn: spend the effort of unlearning on the examples that are hardest to forget. Shapes: B = examples to forget."""

from pydantic import Field
from torch import Tensor

from recsys.spec import Spec


class LoReUn(Spec):
    """Weigh each example to forget by exp(-loss / tau): a small loss is one that the model knows by heart.

    LoReUn, 2025, https://arxiv.org/abs/2507.22499; the losses are those of the present model, its dynamic form. Differs from
    the paper: the weights have mean 1, so that they move effort and add none; tau is the median loss unless it is given.
    """

    tau: float | None = Field(None, gt=0, description="temperature, in units of the loss; null: the median loss")

    def __call__(self, loss_B: Tensor) -> Tensor:
        """weight_B of mean 1, without a gradient."""
        loss_B = loss_B.detach()
        tau = loss_B.median().clamp(min=1e-6) if self.tau is None else self.tau
        weight_B = (-(loss_B - loss_B.min()) / tau).exp()  # the least loss taken off: no weight is lost to underflow
        return weight_B / weight_B.mean()


def shortfall(loss_B: Tensor, level_B: Tensor) -> Tensor:
    """How far each loss lies below what a model that never saw the example would have; 0 from there on.

    Gradient ascent without such an end goes on until forgotten users stand out by losses that are too high.
    """
    return (level_B - loss_B).clamp(min=0)
