"""Policies that learn from rewards: rewards of proposals, and what a policy minimises: (group) -> loss_B."""

from typing import Annotated

from pydantic import Field

from recsys.policy.a_lol import ALoL
from recsys.policy.dpo import DPO
from recsys.policy.lipo import LiPO
from recsys.policy.pg_rank import PGRank
from recsys.policy.remax import ReMax
from recsys.policy.rere import ReRe
from recsys.policy.rewards import Reward
from recsys.policy.s_dpo import SDPO
from recsys.policy.top_k_reinforce import TopKReinforce

PolicyObjective = Annotated[
    ReRe | ReMax | TopKReinforce | PGRank | DPO | SDPO | LiPO | ALoL, Field(discriminator="kind")
]  # fmt: skip

__all__ = ["PolicyObjective", "Reward"]
