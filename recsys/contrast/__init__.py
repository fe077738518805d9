"""Losses of pairs of vectors that belong together: (pairs) -> loss_V, one per pair."""

from typing import Annotated

from pydantic import Field

from recsys.contrast.alignment_uniformity import AlignmentUniformity
from recsys.contrast.calibrated_uniformity import CalibratedUniformity
from recsys.contrast.info_nce import InfoNCE

ViewLoss = InfoNCE  # with a second member: Annotated[InfoNCE | Other, Field(discriminator="kind")]
Uniformity = Annotated[AlignmentUniformity | CalibratedUniformity, Field(discriminator="kind")]
