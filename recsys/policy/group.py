"""What a policy objective is given, and what it answers.

Shapes: B = prompts (histories), G = candidates of each, T = tokens of a candidate, D = width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Union

from torch import Tensor, nn

from recsys.spec import Spec

Proposals = Literal["beam", "sample", "greedy_and_sample", "none"]
"""Where candidates come from: the most probable items, best first; draws of the policy; the most probable item and then
draws; or the log alone."""


@dataclass(frozen=True)
class Group:
    """Candidates of each prompt and what the policy, its parent and the rewards say of them.

    Only `log_prob_BGT` has a gradient. A candidate has T tokens, whose log-probabilities add up to the item's: the codes of a
    semantic id, or the item itself (T = 1). Candidates that do not exist (`exists_BG` false) have log-probability 0 and reward
    0. `target_B` is the column of the event that the log has; -1: it is not among the candidates, or its label is not known.
    """

    log_prob_BGT: Tensor
    parent_BGT: Tensor
    reward_BG: Tensor
    exists_BG: Tensor
    target_B: Tensor
    propensity_B: Tensor | None = None  # the logging policy's chance of the logged event; None: not logged
    state_BD: Tensor | None = None  # what the policy knows of the prompt, detached
    item_BG: Tensor | None = None  # which candidates are the same item; None: all differ
    seed: int = 0  # of whatever the objective draws itself


class Loss(NamedTuple):
    """loss_B, what to log of it (single numbers without gradient), and what an objective with own parameters minimises over
    them, a mean of the prompts."""

    loss_B: Tensor
    terms: dict[str, Tensor]
    own: Tensor | None = None


class Objective(Spec):
    """A subclass adds `kind` and `__call__(group) -> Loss`, which draws and changes nothing that `group` does not say.

    One with parameters of its own overrides `build` and leaves `__call__` to the module; see `Learned`.
    """

    logged: ClassVar[bool] = False  # whether it learns from logged actions and their rewards, and proposes nothing itself
    proposals: ClassVar[tuple[Proposals, ...]] = ("beam", "sample")  # what it can learn from; the first is the default
    needs_target: ClassVar[bool] = False  # whether the logged item has to be a candidate; the last one gives way to it
    reads_reward: ClassVar[bool] = True
    reads_unrewarded: ClassVar[bool] = True  # whether logged actions of reward 0 teach it anything

    def build(self, width: int) -> Union["Objective", "Learned"]:
        """What is called in training; `width` is D of Group."""
        return self

    def __call__(self, group: Group) -> Loss:
        raise NotImplementedError(f"{type(self).__name__} is called as the module that `build` makes")


class Learned(nn.Module, ABC):
    """An objective with parameters. Its state is in the checkpoint, and `Loss.own` trains it, by its own optimizer group."""

    learning_rate: float

    @abstractmethod
    def forward(self, group: Group) -> Loss: ...
