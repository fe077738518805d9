"""One task each: logits and one loss per example."""

from typing import Annotated

from pydantic import Field

from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.sampled_softmax import SampledSoftmax

RetrievalLoss = Annotated[FullSoftmax | SampledSoftmax, Field(discriminator="kind")]
