"""What a reward is given, and what every reward is. Shapes: B = prompts, G = candidates of each, K = tasks."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from recsys.spec import Spec


@dataclass(frozen=True)
class Proposal:
    """What was proposed, and what the log has. The columns of a beam are best first; of samples they are in no order.

    `score` gives each item of item_BG, for these prompts, a number by a recommender that does not learn: score_BG.
    """

    item_BG: Tensor
    exists_BG: Tensor
    target_B: Tensor  # the item of the logged event
    label_BK: Tensor | None = None  # of the logged event; NaN: not known
    tasks: tuple[str, ...] = ()  # whose labels those are
    score: Callable[[Tensor], Tensor] | None = None

    @property
    def hit_BG(self) -> Tensor:
        return (self.item_BG == self.target_B[:, None]) & self.exists_BG

    @property
    def place_BG(self) -> Tensor:
        """1-based, counted over the candidates that exist."""
        return self.exists_BG.long().cumsum(1).clamp(min=1)

    @property
    def column_B(self) -> Tensor:
        """`Group.target_B`: the first column of the logged item, -1 where it was not proposed."""
        return self.hit_BG.int().argmax(1).masked_fill(~self.hit_BG.any(1), -1)


class RewardSpec(Spec):
    """A subclass adds `kind` and `__call__(proposal) -> reward_BG`, without the weight: finite, without gradient, and 0 for
    candidates that do not exist."""

    ordered: ClassVar[bool] = False  # whether the order of the candidates counts, so that they have to be a beam
    of_logged: ClassVar[bool] = False  # whether it tells one logged action from another, with the action as only candidate
    asks_score: ClassVar[bool] = False  # whether it reads `Proposal.score`
    weight: float = Field(1.0, ge=0, description="in the sum of rewards")

    @property
    def reads_task(self) -> str | None:
        """The task whose labels it reads."""
        return None

    @abstractmethod
    def __call__(self, proposal: Proposal) -> Tensor: ...
