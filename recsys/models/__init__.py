"""Embeddings, encoders, towers and multi-task sharing."""

from typing import Annotated

from pydantic import Field

from recsys.models.mmoe import MMoE
from recsys.models.sasrec import SASRec
from recsys.models.shared_bottom import SharedBottom

Encoder = SASRec
Sharing = Annotated[MMoE | SharedBottom, Field(discriminator="kind")]
