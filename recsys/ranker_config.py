"""What the run configuration says of the ranker."""

from pydantic import Field, model_validator

from recsys.balance import Balance
from recsys.balance.fixed import Fixed
from recsys.debias import Debias
from recsys.denoise import Denoiser
from recsys.fit import Fit
from recsys.heads.regression import Regression
from recsys.models import History, Interaction, Sharing
from recsys.models.managed_collision import ManagedCollision
from recsys.models.mean_history import MeanHistory
from recsys.models.mmoe import MMoE
from recsys.spec import Spec


class RankerFit(Fit):
    """The ranker's own defaults: examples are many and short."""

    batch_size: int = Field(1024, ge=1, description="examples of a step, over all processes")
    epochs: int = Field(10, ge=1, description="at most this many passes over the training data")
    learning_rate: float = Field(2e-3, gt=0, description="dense parameters, AdamW")
    embedding_learning_rate: float = Field(0.05, gt=0, description="tables")
    patience: int = Field(2, ge=1, description="validations without a better one before training stops")


class RankerConfig(Spec):
    history: History = MeanHistory()
    interaction: Interaction | None = Field(None, description="crosses of the features, such as {kind: dcn_v2}")
    sharing: Sharing = MMoE()
    balance: Balance = Fixed()
    dim: int = Field(16, ge=4, multiple_of=4, description="width of every feature's vector")
    tables: dict[str, ManagedCollision] = Field(
        default_factory=dict, description="user, item or a feature -> a table with fewer rows than ids, such as {rows: 100000}"
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    max_history: int = Field(50, ge=1, description="recent events that describe the user")
    features: tuple[str, ...] | None = Field(
        None, description="the point-in-time features that it reads, by name; left out: all of `data.features`; [] for none"
    )
    denoise: Denoiser | None = Field(None, description="which positives to trust, such as {kind: truncated}")
    debias: Debias | None = Field(None, description="what stands for the examples that the log left out, such as {kind: ips}")
    regression: Regression = Regression()
    tasks: dict[str, float] = Field(
        default_factory=dict,
        description="task -> weight in the loss; empty: every label of 0 and 1, weight 1. Other labels are regressed",
    )
    fit: RankerFit = RankerFit()

    @model_validator(mode="after")
    def _parts_fit(self) -> "RankerConfig":
        if self.fit.precision == "float16" and not isinstance(self.balance, Fixed):
            raise ValueError(
                f"fit.precision float16 scales the loss, which balance {self.balance.kind} cannot bear: use bfloat16"
            )
        if self.fit.accumulate > 1 and not isinstance(self.balance, Fixed):
            raise ValueError(
                f"fit.accumulate adds up the gradients of parts, which balance {self.balance.kind} cannot bear: set it to 1"
            )
        if self.fit.batch_tokens is not None:
            raise ValueError("fit.batch_tokens sizes batches of sequences, the ranker reads examples: use fit.batch_size")
        if self.fit.accumulate > 1 and self.debias is not None and self.debias.reads_pairs:
            raise ValueError(
                f"fit.accumulate cuts batches into parts, which debias {self.debias.kind}, with pairs of its own, cannot bear: "
                "set it to 1"
            )
        return self
