"""Embeddings, encoders, readers of the history, interactions, multi-task sharing and towers."""

from typing import Annotated

from pydantic import Field

from recsys.models.dcn_v2 import DCNV2
from recsys.models.dtrn import DTRN
from recsys.models.esmm import ESMM
from recsys.models.hstu import HSTU
from recsys.models.mean_history import MeanHistory
from recsys.models.mean_pooling import MeanPooling
from recsys.models.mmoe import MMoE
from recsys.models.ple import PLE
from recsys.models.sasrec import SASRec
from recsys.models.shared_bottom import SharedBottom
from recsys.models.target_attention import TargetAttention

Encoder = Annotated[SASRec | HSTU | MeanPooling, Field(discriminator="kind")]
History = Annotated[MeanHistory | TargetAttention, Field(discriminator="kind")]
Interaction = DCNV2
Sharing = Annotated[MMoE | SharedBottom | PLE | ESMM | DTRN, Field(discriminator="kind")]
