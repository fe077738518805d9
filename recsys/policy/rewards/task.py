"""What did the user do with the item? Shapes: B = prompts, G = candidates, K = tasks."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from recsys.policy.rewards.reward import Proposal, RewardSpec


class Task(RewardSpec):
    """The event's label of a task (a like, a purchase, seconds watched) for the logged item, 0 for any other.

    A label that is not known counts as 0. Nothing is said of items that nobody was shown: as the only reward, an event
    without the label teaches nothing.
    """

    kind: Literal["task"] = "task"
    of_logged: ClassVar[bool] = True
    task: str = Field(min_length=1, description="label of `data.events.labels`")

    @property
    def reads_task(self) -> str:
        return self.task

    def __call__(self, proposal: Proposal) -> Tensor:
        if proposal.label_BK is None or self.task not in proposal.tasks:
            raise ValueError(f"reward: task {self.task!r} is none of the tasks whose labels are read: {list(proposal.tasks)}")
        label_B = proposal.label_BK[:, proposal.tasks.index(self.task)].float().nan_to_num(0.0, 0.0, 0.0)
        return proposal.hit_BG * label_B[:, None]
