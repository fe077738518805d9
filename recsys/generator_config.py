"""What the run configuration says of the generator."""

from typing import Literal

from pydantic import Field, model_validator

from recsys.fit import Fit
from recsys.generate.decoder import Decoder
from recsys.generate.ids_config import IdsConfig
from recsys.models import Encoder
from recsys.models.item_tower import ItemTower
from recsys.spec import Spec


class GeneratorConfig(Spec):
    ids: IdsConfig = IdsConfig()
    encoder: Encoder | None = Field(None, description="of the history; default: the retriever's")
    tower: ItemTower | None = Field(None, description="features of the items of a history; default: the retriever's")
    own_row: bool = Field(True, description="whether an item of a history has a vector of its own beside those of its codes")
    decoder: Decoder = Decoder()
    begin: Literal["retriever", "random"] = Field(
        "retriever",
        description="parameters at first: the trained retriever's, its item vectors rounded to their codes, or random",
    )
    beam: int = Field(50, ge=1, description="prefixes that the search keeps, and so the most items that it finds")
    validation_too: bool = Field(
        False,
        description="train on the validation events as well: no epoch can be chosen by them then, so fit.keep must be last",
    )
    fit: Fit = Fit()

    @model_validator(mode="after")
    def _parts_fit(self) -> "GeneratorConfig":
        if self.begin == "retriever" and (self.encoder is not None or self.tower is not None):
            raise ValueError("begin retriever takes the retriever's encoder and tower: leave both out, or set begin to random")
        if self.validation_too and self.fit.keep != "last":
            raise ValueError("validation_too trains on the events that would choose the best epoch: set fit.keep to last")
        return self
