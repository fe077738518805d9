"""What every member of the family is. Shapes: B = examples or events."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from recsys.spec import Spec
from recsys.weighing import Context


class DenoiserSpec(Spec):
    """A subclass adds `kind` and `__call__(loss_B, label_B, context) -> weight_B`, detached, each at least 0; labels that are
    NaN do not exist and may get any weight. The objective divides by the weights' mean, so only their ratios matter.

    One with parameters of its own overrides `build` and leaves `__call__` to the module; see `Learned`.
    """

    against: ClassVar[Literal["noise", "redundancy"]] = "noise"  # what gets little weight: implausible or easy examples

    @property
    def together(self) -> int:
        """How many positives of one user have to stand together in a batch of examples."""
        return 1

    def build(self) -> "DenoiserSpec | Learned":
        """What is called in training."""
        return self

    def __call__(self, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} is called as the module that `build` makes")

    @classmethod
    @abstractmethod
    def neutral(cls) -> "DenoiserSpec":
        """The settings under which every weight is 1."""


class Learned(nn.Module, ABC):
    """A denoiser with parameters. Its state is in the checkpoint, and its own loss trains it, by its own optimizer group."""

    learning_rate: float

    @abstractmethod
    def forward(self, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        """weight_B, with a gradient to the own parameters alone."""

    def trusted(self, weight_B: Tensor, context: Context) -> Tensor:
        """The weights that the model's loss gets in this step."""
        return weight_B

    @abstractmethod
    def own_loss(self, weight_B: Tensor, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        """What the own parameters minimise, from the weights of this step."""
