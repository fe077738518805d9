"""Settings of the optimiser and the loop."""

from pydantic import Field

from recsys.spec import Spec


class Fit(Spec):
    batch_size: int = Field(128, ge=1, description="sequences or examples per process and step")
    epochs: int = Field(20, ge=1, description="at most this many passes over the training data")
    max_minutes: float | None = Field(None, gt=0, description="stop after this much training; the rate decays to fit")
    learning_rate: float = Field(1e-3, gt=0, description="dense parameters, AdamW")
    embedding_learning_rate: float = Field(0.02, gt=0, description="tables, row-wise Adagrad")
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(100, ge=0)
    final_share: float = Field(0.05, gt=0, le=1, description="share of the learning rates left at the end of the cosine decay")
    clip_norm: float = Field(5.0, gt=0, description="largest norm of the dense gradient")
    evaluate_every: int = Field(1, ge=1, description="epochs between validations")
    patience: int = Field(5, ge=1, description="validations without a better one before training stops")
    checkpoint_minutes: float = Field(5.0, ge=0, description="minutes between checkpoints to resume from")
