"""The run configuration: its sections, what follows from them, and what has to fit between them."""

from pathlib import Path

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from recsys.config_file import read, sentence
from recsys.continual_config import ContinualConfig
from recsys.daily_config import DailyConfig
from recsys.data import Data
from recsys.errors import InputError
from recsys.evaluation_config import EvaluationConfig
from recsys.generate.generator import CODES
from recsys.generator_config import GeneratorConfig
from recsys.metrics.slices import RULES
from recsys.models import Encoder
from recsys.models.item_tower import ItemTower
from recsys.policy_config import PolicyConfig
from recsys.promotion_config import PromotionConfig
from recsys.ranker_config import RankerConfig
from recsys.retriever_config import ItemViewsConfig, RetrieverConfig, SequenceViewsConfig
from recsys.serving_config import ServingConfig
from recsys.spec import STORED, Spec, asked_for
from recsys.value_formula import tasks_of

__all__ = [
    "ContinualConfig", "DailyConfig", "EvaluationConfig", "GeneratorConfig", "ItemViewsConfig", "PolicyConfig",
    "PromotionConfig", "RankerConfig", "RetrieverConfig", "RunConfig", "SequenceViewsConfig", "ServingConfig", "load",
]  # fmt: skip


class RunConfig(Spec):
    """Everything a run needs beside its input folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(1, ge=0)
    max_history: int = Field(50, ge=1, description="events of a user that the retriever reads")
    data: Data
    retriever: RetrieverConfig = RetrieverConfig()
    generator: GeneratorConfig | None = Field(
        None,
        description="a model that writes the next item as a semantic id, such as {ids: {vectors: {kind: content}}}",
    )
    policy: PolicyConfig | None = Field(
        None, description="go on from the trained retriever (or generator) by rewards, such as {objective: {kind: rere}}"
    )
    ranker: RankerConfig = RankerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()
    promotion: PromotionConfig = PromotionConfig()
    continual: ContinualConfig = ContinualConfig()
    daily: DailyConfig = DailyConfig()

    @property
    def tasks(self) -> dict[str, float]:
        """The tasks the ranker learns and their weights in the loss."""
        arm = self.ranker.debias.arm if self.ranker.debias else None
        return self.ranker.tasks or {task: 1.0 for task in self.data.events.tasks if task != arm}

    @property
    def ranker_features(self) -> tuple[str, ...]:
        """The point-in-time features that the ranker reads."""
        return tuple(self.data.features) if self.ranker.features is None else self.ranker.features

    @property
    def regression(self) -> list[str]:
        """The tasks whose label is a number, and not 0 or 1."""
        return [task for task in self.tasks if task not in self.data.events.tasks]

    @property
    def category(self) -> str | None:
        """The item feature by which lists are judged for diversity; None where items have no features."""
        features = self.data.items.features if self.data.items else {}
        return self.evaluation.category or next(iter(features), None)

    @property
    def segment(self) -> str | None:
        """The user feature by whose values popularity is kept; None where users have no features."""
        features = self.data.users.features if self.data.users else {}
        return self.serving.segment or next(iter(features), None)

    @property
    def generator_encoder(self) -> Encoder:
        return (self.generator and self.generator.encoder) or self.retriever.encoder

    @property
    def generator_tower(self) -> ItemTower:
        return (self.generator and self.generator.tower) or self.retriever.tower

    @property
    def value(self) -> dict[str, float] | str:
        return self.serving.value or {task: 1.0 for task in self.tasks if task not in self.regression}

    @model_validator(mode="after")
    def _tasks_exist(self) -> "RunConfig":
        events = self.data.events
        for where, names in (("ranker.tasks", list(self.ranker.tasks)), ("serving.value", tasks_of(self.serving.value))):
            known = list(events.labels) if where == "ranker.tasks" else list(self.tasks)
            for name in names:
                if name not in known:
                    raise ValueError(f"{where} names the unknown task {name!r}: choose from {known}")
        return self

    @model_validator(mode="after")
    def _ranker_features_fit(self) -> "RunConfig":
        for name in self.ranker_features:
            if name not in self.data.features:
                raise ValueError(
                    f"ranker.features names {name!r}, which is no point-in-time feature: choose from {list(self.data.features)}"
                )
        if len(set(self.ranker_features)) < len(self.ranker_features):
            raise ValueError(f"ranker.features {list(self.ranker_features)} names a feature twice: name each once")
        debias = self.ranker.debias
        if self.ranker_features and debias is not None and debias.reads_pairs:
            raise ValueError(
                f"ranker.debias {debias.kind} draws pairs that nobody chose, whose point-in-time features are not known: "
                "set ranker.features to []"
            )
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
        towers = {"retriever": self.retriever.tower, "generator": self.generator_tower}
        for part, tower in towers.items():
            for name in tower.features:
                if name not in known:
                    raise ValueError(
                        f"{part}.tower.features names {name!r}, which is no item feature: choose from {list(known)}"
                    )
        return self

    @model_validator(mode="after")
    def _generator_fits(self) -> "RunConfig":
        if self.generator is None:
            return self
        heads, dim = self.generator.decoder.heads, self.generator_encoder.dim
        if dim % heads:
            raise ValueError(f"generator.decoder.heads {heads} does not divide the encoder's dim {dim}: choose another")
        if CODES in self.generator_tower.features:
            raise ValueError(f"generator.tower.features names {CODES!r}, which the semantic ids are called: rename the feature")
        if self.generator.begin == "retriever" and self.retriever.validation_too and not self.generator.validation_too:
            raise ValueError(
                "generator.begin takes the retriever, which retriever.validation_too trains on the events that would choose "
                "the generator's best epoch: set generator.validation_too as well, or begin to random"
            )
        return self

    @model_validator(mode="after")
    def _policy_fits(self) -> "RunConfig":
        policy, events = self.policy, self.data.events
        if policy is None:
            return self
        if policy.parent != "retriever" and getattr(self, policy.parent, None) is None:
            raise ValueError(f"policy.parent {policy.parent} is not trained by this config: add a `{policy.parent}` section")
        if getattr(self, policy.parent).validation_too:
            raise ValueError(
                f"policy keeps its parent unless it validates better, and {policy.parent}.validation_too trains on those "
                "events: take one of them out"
            )
        known = list(events.labels if policy.objective.logged else events.tasks)  # of an event: what it had, or had not
        for task in policy.tasks:
            if task not in known:
                raise ValueError(f"policy.rewards name the unknown task {task!r}: choose from {known}")
        if policy.reads_propensity and events.propensity is None:
            raise ValueError(
                f"policy.objective {policy.objective.kind} needs data.events.propensity, the chance with which the item was "
                "shown: name its column, or choose another behaviour"
            )
        where, most = "serving.num_candidates", self.serving.num_candidates
        if policy.parent == "generator" and self.generator is not None:
            where, most = "generator.beam", self.generator.beam
        if policy.proposals.count > most:
            raise ValueError(
                f"policy.proposals.count {policy.proposals.count} is more than {where} {most}, the most that is ever asked "
                "for: lower it"
            )
        return self

    @model_validator(mode="after")
    def _candidates_fit(self) -> "RunConfig":
        if self.serving.candidates == "generator" and self.generator is None:
            raise ValueError(
                "serving.candidates is generator, and this config trains none: add a `generator` section, or choose retriever"
            )
        return self

    @model_validator(mode="after")
    def _error_memory_fits(self) -> "RunConfig":
        memory, classes = self.serving.error_memory, [task for task in self.tasks if task not in self.regression]
        for task in memory.tasks if memory else ():
            if task not in classes:
                raise ValueError(
                    f"serving.error_memory.tasks names {task!r}: choose from the ranker's tasks of 0 and 1, {classes}"
                )
        return self

    @model_validator(mode="after")
    def _segment_fits(self) -> "RunConfig":
        features = list(self.data.users.features) if self.data.users else []
        if self.serving.segment is not None and self.serving.segment not in features:
            raise ValueError(f"serving.segment names the unknown user feature {self.serving.segment!r}: choose from {features}")
        return self

    @model_validator(mode="after")
    def _promotion_fits(self) -> "RunConfig":
        rules = self.evaluation
        classes = [task for task in self.tasks if task not in self.regression]
        self.promotion.check(rules.ks, [*RULES, *rules.user_slices, *rules.item_slices], classes)
        return self

    @model_validator(mode="after")
    def _histories_fit(self, info: ValidationInfo) -> "RunConfig":
        if asked_for(self.ranker, "max_history", info) and self.ranker.max_history > self.max_history:
            raise ValueError(
                f"ranker.max_history {self.ranker.max_history} is more than max_history {self.max_history}, "
                "which is all that serving reads: lower it, or raise max_history"
            )
        return self

    @property
    def ranker_history(self) -> int:
        """Recent events the ranker reads; never more than serving passes on."""
        return min(self.ranker.max_history, self.max_history)


def load(path: Path, *overrides: str, stored: bool = False) -> RunConfig:
    """Read a config; an override is "section.key=value", its value in YAML. Raises InputError with the place and the choices.

    `stored`: by a run, with the defaults that nobody asked for.

    A file may begin with `extends: other.yaml`, a file beside it whose keys it overrides one by one.
    """
    tree = read(path, overrides)
    try:
        return RunConfig.model_validate(tree, context={STORED: stored})
    except ValidationError as error:
        raise InputError(f"{path}: {sentence(error, RunConfig)}") from error
