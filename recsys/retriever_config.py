"""What the run configuration says of the retriever."""

from pydantic import Field, model_validator

from recsys.augment import FeatureMask, HistoryView
from recsys.augment.correlated import Correlated
from recsys.augment.crop import Crop
from recsys.augment.dropout import Dropout
from recsys.augment.mask import Mask
from recsys.contrast import Uniformity, ViewLoss
from recsys.contrast.info_nce import InfoNCE
from recsys.debias import IPS, SNIPS, Debias
from recsys.debias.popularity import Popularity
from recsys.denoise import Denoiser
from recsys.fit import Fit
from recsys.heads import PairLoss, RetrievalLoss
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.matryoshka import Matryoshka
from recsys.heads.similarity import Dot, Similarity
from recsys.models import Encoder
from recsys.models.item_tower import ItemTower
from recsys.models.sasrec import SASRec
from recsys.sample import HardNegatives, Mixed, SharedNegatives
from recsys.spec import Spec


class SequenceViewsConfig(Spec):
    first: HistoryView = Crop()
    second: HistoryView = Mask()
    loss: ViewLoss = InfoNCE()
    weight: float = Field(0.1, gt=0, description="of this term in the retriever's loss")


class ItemViewsConfig(Spec):
    mask: FeatureMask = Correlated()
    value_dropout: float = Field(0.1, ge=0, lt=1, description="share of the values of a feature of several that a view lacks")
    items: int = Field(1024, ge=2, description="drawn uniformly from the catalogue in each step, each one the others' negative")
    loss: ViewLoss = InfoNCE()
    weight: float = Field(0.1, gt=0, description="of this term in the retriever's loss")


class RetrieverConfig(Spec):
    encoder: Encoder = SASRec()
    tower: ItemTower = ItemTower()
    similarity: Similarity = Dot()
    loss: RetrievalLoss = FullSoftmax()
    negatives: SharedNegatives | None = Field(
        None, description="what a sampled loss compares the next item with; default: mixed"
    )
    hard: HardNegatives | None = Field(
        None, description="which of them each row is compared with, such as {kind: dynamic}; null: all"
    )
    matryoshka: Matryoshka | None = Field(None, description="widths at which the vectors serve alone, such as {dims: [16, 32]}")
    denoise: Denoiser | None = Field(None, description="which positives to trust, such as {kind: truncated}")
    debias: Debias | None = Field(
        None, description="ips or snips by popularity: targets that the log has too often count less, such as {kind: snips}"
    )
    sequence_views: SequenceViewsConfig | None = Field(
        None, description="two views of a history are to agree, such as {first: {kind: crop}, second: {kind: mask}}"
    )
    item_views: ItemViewsConfig | None = Field(
        None, description="two parts of an item's features are to agree, such as {mask: {kind: correlated}}"
    )
    uniformity: Uniformity | None = Field(
        None, description="users near their items, and all evenly spread, such as {kind: alignment_uniformity}"
    )
    validation_too: bool = Field(
        False,
        description="train on the validation events as well: no epoch can be chosen by them then, so fit.keep must be last",
    )
    fit: Fit = Fit()

    @model_validator(mode="after")
    def _parts_fit(self) -> "RetrieverConfig":
        if self.negatives is not None and not self.loss.sampled:
            raise ValueError(f"negatives have no use with loss {self.loss.kind}, which compares with all items: take them out")
        self._hard_fits()
        if self.validation_too and self.fit.keep != "last":
            raise ValueError("validation_too trains on the events that would choose the best epoch: set fit.keep to last")
        if self.matryoshka is not None and self.matryoshka.dims[-1] > self.encoder.dim:
            raise ValueError(
                f"matryoshka.dims {self.matryoshka.dims[-1]} is more than encoder.dim {self.encoder.dim}: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _terms_fit(self) -> "RetrieverConfig":
        for name in ("sequence_views", "uniformity"):
            if getattr(self, name) is not None and self.fit.accumulate > 1:
                raise ValueError(
                    f"fit.accumulate {self.fit.accumulate} takes a batch in parts, {name} compares all of it: set it to 1"
                )
        views, number = self.sequence_views, len(self.tower.features)
        if views and isinstance(views.first, Dropout) and isinstance(views.second, Dropout) and not self.encoder.dropout:
            raise ValueError("two dropout views are equal with encoder.dropout 0: raise it, or choose another view")
        if self.item_views is not None and number < 2:
            raise ValueError(
                f"item_views splits tower.features into two parts, and there are {number}: name two or more, or leave it out"
            )
        if self.uniformity is not None and self.uniformity.reads_modalities and not number:
            raise ValueError(
                f"uniformity {self.uniformity.kind} compares items by tower.features, which are empty: name some, "
                "or use alignment_uniformity"
            )
        return self

    def _hard_fits(self) -> None:
        hard, loss = self.hard, self.loss
        if hard is None:
            return
        if not loss.sampled:
            raise ValueError(
                f"hard chooses among negatives, of which loss {loss.kind} has none: take a sampled loss, such as bpr"
            )
        if hard.needs_pairs and not isinstance(loss, PairLoss):
            raise ValueError(f"hard {hard.kind} makes pairs of target and negative, not what loss {loss.kind} reads: take bpr")
        if hard.whole_vectors and self.matryoshka is not None:
            raise ValueError(f"hard {hard.kind} reads vectors of one width only: take matryoshka out, or use dynamic")
        pool = (self.negatives or Mixed()).drawn
        if pool is not None and pool <= hard.reach:
            raise ValueError(
                f"hard {hard.kind} chooses among the best {hard.reach} of each row, and there are only {pool} negatives to "
                "choose from: raise their count, or take negatives: {kind: catalogue}"
            )

    @model_validator(mode="after")
    def _debias_fits(self) -> "RetrieverConfig":
        if self.debias is None:
            return self
        if not isinstance(self.debias, IPS | SNIPS):
            raise ValueError(
                f"debias {self.debias.kind} is about examples, which the retriever does not read: take ips or snips"
            )
        if not isinstance(self.debias.propensity, Popularity):
            raise ValueError(
                f"debias.propensity {self.debias.propensity.kind} is about examples, which the retriever does not read: choose "
                "popularity"
            )
        return self
