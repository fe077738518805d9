"""How a trained model is judged: cutoffs, what is taken out of the rankings, slices."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from recsys.spec import Spec


class EvaluationConfig(Spec):
    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field((10, 20, 50), min_length=1)
    request_time: Literal["target", "last_event"] = Field(
        "target",
        description="when a list is asked for: as the target happens, or, for the model not to know, as the last event did",
    )
    filter_seen: bool = Field(True, description="items of the user's history are taken out of the ranking")
    ece_bins: int = Field(15, ge=2)
    user_slices: dict[str, str] = Field(
        default_factory=dict, description="name -> SQL condition on a user's features or history_length, such as age < 25"
    )
    item_slices: dict[str, str] = Field(
        default_factory=dict,
        description="name -> SQL condition on an item's features, title or train_count",
    )
    category: str | None = Field(
        None, description="the item feature that diversity and calibration of categories read; default: the first one"
    )

    @field_validator("ks")
    @classmethod
    def _each_k_once(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ks)) < len(ks):
            raise ValueError(f"{list(ks)} names a K twice: name each once")
        return ks
