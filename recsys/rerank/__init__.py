"""The order of a list after the ranker: (slate, k, random numbers) -> a new order, and its chances where it has any."""

from typing import Annotated

from pydantic import Field

from recsys.rerank.explore import Explore
from recsys.rerank.jointrank import JointRank
from recsys.rerank.mmr import MMR
from recsys.rerank.quotas import Quotas
from recsys.rerank.reranker import RerankerSpec, check_categories, check_chain
from recsys.rerank.slate import Reranked, Slate

Reranker = Annotated[MMR | Quotas | JointRank | Explore, Field(discriminator="kind")]

__all__ = [
    "MMR",
    "Explore",
    "JointRank",
    "Quotas",
    "Reranked",
    "Reranker",
    "RerankerSpec",
    "Slate",
    "check_categories",
    "check_chain",
]
