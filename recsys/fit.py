"""Settings of the optimizers and the loop."""

from typing import Literal

from pydantic import Field

from recsys.spec import Spec


class Fit(Spec):
    batch_size: int = Field(128, ge=1, description="sequences or examples of a step, over all processes")
    batch_tokens: int | None = Field(
        None,
        ge=1,
        description="memory budget: a batch of sequences has at most this many padded events, however many rows that is",
    )
    accumulate: int = Field(
        1, ge=1, description="parts in which a batch goes through the dense layers, for the same result in less memory"
    )
    epochs: int = Field(20, ge=1, description="at most this many passes over the training data")
    max_minutes: float | None = Field(None, gt=0, description="stop after this much training; the rate decays to fit")
    learning_rate: float = Field(1e-3, gt=0, description="dense parameters, AdamW")
    embedding_optimizer: Literal["rowwise_adagrad", "adam", "sgd"] = Field(
        "rowwise_adagrad", description="of the tables, fused into the backward pass; adam needs a GPU"
    )
    embedding_learning_rate: float = Field(0.02, gt=0, description="tables")
    weight_decay: float = Field(0.0, ge=0, description="of the dense parameters, decoupled")
    warmup_steps: int = Field(100, ge=0)
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final_share: float = Field(0.05, gt=0, le=1, description="share of the learning rates left at the end of the decay")
    clip_norm: float = Field(5.0, gt=0, description="largest norm of the dense gradient")
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the dense layers' arithmetic")
    deterministic: bool = Field(False, description="refuse kernels whose result may differ between runs")
    evaluate_every: int = Field(1, ge=1, description="epochs between validations")
    patience: int = Field(5, ge=1, description="validations without a better one before training stops")
    keep: Literal["best", "last"] = Field("best", description="which model is written: the best validated, or the last")
    checkpoint_minutes: float = Field(5.0, ge=0, description="minutes between checkpoints to resume from")
    checkpoints: int = Field(2, ge=1, description="checkpoints kept; an older one serves where the newest is damaged")
    report_gradients_every: int = Field(
        0, ge=0, description="steps between reports of each task's gradient norm and of their conflicts; 0: never"
    )
