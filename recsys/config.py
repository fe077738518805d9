"""The run configuration, and the only reader of YAML."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from recsys.augment import FeatureMask, HistoryView
from recsys.augment.correlated import Correlated
from recsys.augment.crop import Crop
from recsys.augment.dropout import Dropout
from recsys.augment.mask import Mask
from recsys.balance import Balance
from recsys.balance.fixed import Fixed
from recsys.contrast import Uniformity, ViewLoss
from recsys.contrast.info_nce import InfoNCE
from recsys.data import Data
from recsys.debias import IPS, SNIPS, Debias
from recsys.debias.popularity import Popularity
from recsys.denoise import Denoiser
from recsys.errors import InputError
from recsys.fit import Fit
from recsys.heads import PairLoss, RetrievalLoss
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.matryoshka import Matryoshka
from recsys.heads.regression import Regression
from recsys.heads.similarity import Dot, Similarity
from recsys.models import Encoder, History, Interaction, Sharing
from recsys.models.item_tower import ItemTower
from recsys.models.managed_collision import ManagedCollision
from recsys.models.mean_history import MeanHistory
from recsys.models.mmoe import MMoE
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


class EvaluationConfig(Spec):
    ks: tuple[int, ...] = Field((10, 20, 50), min_length=1)
    request_time: Literal["target", "last_event"] = Field(
        "target",
        description="when a list is asked for: as the target happens, or, for the model not to know, as the last event did",
    )
    filter_seen: bool = Field(True, description="items of the user's history are taken out of the ranking")
    ece_bins: int = Field(15, ge=2)


class ServingConfig(Spec):
    dim: int | None = Field(
        None, ge=1, description="numbers of the vectors that retrieval scores; one of retriever.matryoshka.dims"
    )
    num_candidates: int = Field(200, ge=1, description="items the retriever hands to the ranker; the largest k of a request")
    value: dict[str, float] = Field(
        default_factory=dict, description="task -> weight in the final score; empty: all tasks, weight 1"
    )


class RunConfig(Spec):
    """Everything a run needs beside its input folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(1, ge=0)
    max_history: int = Field(50, ge=1, description="events of a user that the retriever reads")
    data: Data
    retriever: RetrieverConfig = RetrieverConfig()
    ranker: RankerConfig = RankerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()

    @property
    def tasks(self) -> dict[str, float]:
        """The tasks the ranker learns and their weights in the loss."""
        arm = self.ranker.debias.arm if self.ranker.debias else None
        return self.ranker.tasks or {task: 1.0 for task in self.data.events.tasks if task != arm}

    @property
    def regression(self) -> list[str]:
        """The tasks whose label is a number, and not 0 or 1."""
        return [task for task in self.tasks if task not in self.data.events.tasks]

    @property
    def value(self) -> dict[str, float]:
        return self.serving.value or {task: 1.0 for task in self.tasks if task not in self.regression}

    @model_validator(mode="after")
    def _tasks_exist(self) -> "RunConfig":
        events = self.data.events
        for where, names in (("ranker.tasks", self.ranker.tasks), ("serving.value", self.serving.value)):
            known = list(events.labels) if where == "ranker.tasks" else list(self.tasks)
            for name in names:
                if name not in known:
                    raise ValueError(f"{where} names the unknown task {name!r}: choose from {known}")
        return self

    @model_validator(mode="after")
    def _sharing_fits(self) -> "RunConfig":
        self.ranker.sharing.check(list(self.tasks), self.regression)
        if self.ranker.denoise is not None and self.regression:
            raise ValueError(
                f"ranker.denoise {self.ranker.denoise.kind} reads labels of 0 and 1, and task {self.regression[0]!r} is a "
                "number: take one of them out"
            )
        return self

    @model_validator(mode="after")
    def _debias_fits(self) -> "RunConfig":
        debias, events = self.ranker.debias, self.data.events
        if debias is None:
            return self
        where, source, first = f"ranker.debias {debias.kind}", debias.source, next(iter(self.tasks), "")
        if debias.only_classes and self.regression:
            raise ValueError(f"{where} needs labels of 0 and 1, and task {self.regression[0]!r} is a number: take it out")
        if debias.arm is not None and debias.arm not in events.labels:
            raise ValueError(f"{where} reads the arm from label {debias.arm!r}: choose from {list(events.labels)}")
        if debias.arm is not None and debias.arm in self.tasks:
            raise ValueError(f"ranker.tasks names {debias.arm!r}, which {where} reads as the arm: take it out")
        if source is None:
            return self
        where = f"ranker.debias.propensity {source.kind}"
        if source.column is not None and getattr(events, source.column) is None:
            raise ValueError(f"{where} needs data.events.{source.column}: name its column, or choose popularity")
        if source.reads_label and first in self.regression:
            raise ValueError(f"{where} needs a first task of 0 and 1, and {first!r} is a number: name another one first")
        if source.one_task and len(self.tasks) > 1:
            raise ValueError(
                f"{where} hangs on the label of one task, and there are {list(self.tasks)}: name one in ranker.tasks"
            )
        return self

    @model_validator(mode="after")
    def _vectors_fit(self) -> "RunConfig":
        trained = self.retriever.matryoshka.dims if self.retriever.matryoshka else ()
        if self.serving.dim is not None and self.serving.dim not in (*trained, self.retriever.encoder.dim):
            raise ValueError(
                f"serving.dim {self.serving.dim} is none of retriever.matryoshka.dims {list(trained)}: add it there"
            )
        known = self.data.items.features if self.data.items else {}
        for name in self.retriever.tower.features:
            if name not in known:
                raise ValueError(
                    f"retriever.tower.features names {name!r}, which is no item feature: choose from {list(known)}"
                )
        return self

    @model_validator(mode="after")
    def _histories_fit(self) -> "RunConfig":
        if "max_history" in self.ranker.model_fields_set and self.ranker.max_history > self.max_history:
            raise ValueError(
                f"ranker.max_history {self.ranker.max_history} is more than max_history {self.max_history}, "
                "which is all that serving reads: lower it, or raise max_history"
            )
        return self

    @property
    def ranker_history(self) -> int:
        """Recent events the ranker reads; never more than serving passes on."""
        return min(self.ranker.max_history, self.max_history)


def load(path: Path, *overrides: str) -> RunConfig:
    """Read a config; an override is "section.key=value", its value in YAML. Raises InputError with the place and the choices.

    A file may begin with `extends: other.yaml`, a file beside it whose keys it overrides one by one.
    """
    tree = _tree(path, ())
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r} is not of the form section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"override {override!r}: the value is not valid YAML: {' '.join(str(error).split())}") from error
        tree = _merge(tree, _nest(key.split("."), value))
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error)}") from error


def _tree(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise InputError(f"{path}: `extends` goes round in a circle")
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): name a config file, or one of the shipped configs"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} must hold a mapping of sections, such as `name:` and `data:`")
    base = tree.pop("extends", None)
    return tree if base is None else _merge(_tree(path.parent / str(base), (*above, path.resolve())), tree)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`change` over `base`, key by key; a change of `kind` replaces the whole section, since its settings are other ones."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        merged[key] = _merge(old, value) if same_kind and isinstance(old, dict) else value
    return merged


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the config"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {place!r}: choose from {_choices(first['loc'])}{more}"
        case "union_tag_not_found":
            return f"{place!r} needs a `kind`: choose from {_choices((*first['loc'], ''))}{more}"
        case "missing":
            return f"{place!r} is missing{more}"
        case "value_error":
            return f"{place}: {first['ctx']['error']}{more}"
        case _:
            return f"{place} = {first.get('input')!r}: {first['msg']}{more}"


def _choices(place: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed where a misspelt one stands."""
    schema: dict[str, Any] = RunConfig.model_json_schema()
    definitions, node = schema["$defs"], schema
    for part in place[:-1]:
        node = _resolve(node.get("properties", {}).get(part, {}), definitions, str(part)) or node
    return sorted(node.get("properties", {}))


def _resolve(node: dict[str, Any], definitions: dict[str, Any], tag: str) -> dict[str, Any]:
    for candidate in (node, *node.get("anyOf", []), *node.get("allOf", [])):
        if "$ref" in candidate:
            return definitions[candidate["$ref"].rsplit("/", 1)[1]]
        if "discriminator" in candidate:
            return {"properties": {kind: {"$ref": ref} for kind, ref in candidate["discriminator"]["mapping"].items()}}
    return node
