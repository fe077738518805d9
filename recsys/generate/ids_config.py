"""What the run configuration says of semantic ids."""

from typing import Annotated

from pydantic import Field, ValidationInfo, model_validator

from recsys.generate.balanced_kmeans import BalancedKMeans
from recsys.generate.collaborative import Collaborative
from recsys.generate.content import Content
from recsys.generate.given import Given
from recsys.generate.joint import Joint
from recsys.generate.rq_vae import RQVAE
from recsys.spec import Spec, asked_for

Vectors = Annotated[Content | Collaborative | Joint, Field(discriminator="kind")]
Quantizer = Annotated[BalancedKMeans | RQVAE | Given, Field(discriminator="kind")]


class Limits(Spec):
    """Beyond these, ids are refused: a decoder that learns collapsed ids learns little."""

    min_usage: float = Field(0.5, ge=0, le=1, description="share of each level's codes that some item has")
    min_entropy: float = Field(0.3, ge=0, le=1, description="of each level's codes, as a share of that of codes used alike")
    max_collision_rate: float = Field(
        0.5, ge=0, le=1, description="share of items without an id of their own before the last level"
    )
    max_collisions: int = Field(
        64, ge=1, description="items that share all codes before the last level; what that level can tell"
    )
    max_without_content: float = Field(
        0.05, ge=0, le=1, description="share of items without a vector, which get codes of the mean"
    )


class IdsConfig(Spec):
    vectors: Vectors = Field(Content(), description="what items that shall share codes have in common")
    quantizer: Quantizer = Field(BalancedKMeans(), description="how vectors become codes, or `given`: codes of the data")
    spare: int = Field(4, ge=0, description="codes of the last level beyond those in use, for items that come later")
    limits: Limits = Limits()

    @property
    def reads_retriever(self) -> bool:
        """Whether a trained retriever must be there first."""
        return self.quantizer.reads_vectors and self.vectors.reads_retriever

    @model_validator(mode="after")
    def _vectors_are_read(self, info: ValidationInfo) -> "IdsConfig":
        if not self.quantizer.reads_vectors and asked_for(self, "vectors", info):
            raise ValueError(
                f"quantizer {self.quantizer.kind} takes codes from the data and reads no vectors: take `vectors` out"
            )
        return self
