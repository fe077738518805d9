"""One task each: logits and one loss per example."""

from typing import Annotated

from pydantic import Field

from recsys.heads.bpr import BPR
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.gbce import GBCE
from recsys.heads.lambda_pairs import LambdaPairs
from recsys.heads.sampled_softmax import SampledSoftmax

PairLoss = BPR | LambdaPairs  # of pairs of target and negative, which may be weighed one by one
SampledLoss = SampledSoftmax | GBCE | PairLoss  # reads drawn negatives instead of the whole catalogue
RetrievalLoss = Annotated[FullSoftmax | SampledSoftmax | GBCE | BPR | LambdaPairs, Field(discriminator="kind")]
