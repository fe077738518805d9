"""One task each: logits and one loss per example."""

from typing import Annotated

from pydantic import Field

from recsys.heads.bpr import BPR
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.gbce import GBCE
from recsys.heads.sampled_softmax import SampledSoftmax

SampledLoss = SampledSoftmax | GBCE | BPR  # reads drawn negatives instead of the whole catalogue
RetrievalLoss = Annotated[FullSoftmax | SampledSoftmax | GBCE | BPR, Field(discriminator="kind")]
