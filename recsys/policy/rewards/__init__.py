"""What is good about a proposal: (proposal) -> reward_BG."""

from typing import Annotated

from pydantic import Field

from recsys.policy.rewards.hit import Hit
from recsys.policy.rewards.ndcg import NDCG
from recsys.policy.rewards.rank import Rank
from recsys.policy.rewards.recommender import Recommender
from recsys.policy.rewards.task import Task

Reward = Annotated[Hit | Rank | NDCG | Task | Recommender, Field(discriminator="kind")]
