"""What a version has to show before it becomes the champion: the gates and their limits. null switches a gate off."""

from typing import Literal

from pydantic import Field, model_validator

from recsys.metrics.direction import direction
from recsys.metrics.slices import ITEM_SLICES, USER_SLICES
from recsys.spec import Spec

GATED = ("HR", "NDCG", "MRR", "MAP", "Recall", "Precision", "novelty", "ILD", "serendipity")  # of each user, more is better
STANDARD_SLICES = (*ITEM_SLICES, *USER_SLICES)


class ChampionGate(Spec):
    """How the candidate has to stand beside the champion: a paired interval over users."""

    mode: Literal["not_worse", "better"] = Field(
        "not_worse", description="not_worse: the interval of the difference lies above -margin; better: above 0"
    )
    margin: float = Field(
        0.05, ge=0, lt=1, description="of not_worse: the loss that is tolerated, a share of the champion's mean"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of the two-sided interval whose lower end is read")
    on_other_data: Literal["allow", "refuse"] = Field(
        "allow", description="where the champion was judged on another dataset, so that there is nothing to compare"
    )
    on_other_protocol: Literal["allow", "refuse"] = Field(
        "refuse", description="where it was judged by other rules (split, seen items, ties, K, slices)"
    )


class FloorGate(Spec):
    """How it has to stand beside the models that need no training."""

    mode: Literal["shown", "mean"] = Field(
        "shown", description="shown: the paired interval of the difference to every floor lies above 0; mean: the means suffice"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of the two-sided interval whose lower end is read")


class SliceGate(Spec):
    """What a part of the test split has to keep."""

    metric: str | None = Field(None, description="such as HR@20; default: promotion.metric")
    min: float | None = Field(None, description="the least value; null: any")
    max_drop: float | None = Field(
        0.2, ge=0, le=1, description="the largest drop below the champion, a share of the champion's value; null: any"
    )
    min_users: int = Field(500, ge=1, description="with fewer users in the slice, the drop says nothing and is not judged")


class PromotionConfig(Spec):
    """The gates of `recsys promote`."""

    metric: str | None = Field(
        None, description="the main metric, one value per user, such as HR@20; default: NDCG at the first of evaluation.ks"
    )
    champion: ChampionGate | None = ChampionGate()
    floor: FloorGate | None = FloorGate()
    slices: dict[str, SliceGate] = Field(
        default_factory=lambda: {name: SliceGate() for name in STANDARD_SLICES},
        description="by slice; what is given takes the place of the five standard slices; {}: off",
    )
    calibration: float | dict[str, float] | None = Field(
        None, description="the largest expected calibration error, of every task or by task"
    )
    coverage: float | None = Field(
        None, ge=0, le=1, description="the least share of the catalogue in the lists of the first K, coverage@K"
    )
    popularity_lift: float | None = Field(None, description="the largest popularity_lift@K at the first K")
    parity: float | None = Field(1e-4, gt=0, description="the largest difference of the torch and the ONNX outputs")
    latency_p99_ms: float | None = Field(
        None, gt=0, description="the 99th percentile of one list of the exported bundle, on one thread, measured at export"
    )
    size_mib: float | None = Field(None, gt=0, description="the largest bundle")

    @model_validator(mode="after")
    def _limits_are_numbers_above_zero(self) -> "PromotionConfig":
        for task, limit in self.calibration.items() if isinstance(self.calibration, dict) else (("", self.calibration),):
            if limit is not None and limit <= 0:
                raise ValueError(f"calibration{'.' + task if task else ''} is {limit}: give a limit above 0, or null")
        return self

    def main_metric(self, first_k: int) -> str:
        return self.metric or f"NDCG@{first_k}"

    def check(self, ks: tuple[int, ...], slices: list[str], tasks: list[str]) -> None:
        """Raise ValueError where a gate names a K, a slice or a task that the evaluation does not have."""
        metrics = {"promotion.metric": self.metric}
        metrics |= {f"promotion.slices.{name}.metric": gate.metric for name, gate in self.slices.items()}
        for where, metric in metrics.items():
            if metric is not None and metric.rpartition("@")[2] not in map(str, ks):
                raise ValueError(
                    f"{where} {metric!r} is not a metric at one of evaluation.ks {list(ks)}: name one, such as HR@{ks[0]}"
                )
            if metric is not None and direction(metric) != 1:
                raise ValueError(f"{where} {metric!r} is not better where it is higher: name one that is, such as HR@{ks[0]}")
            if metric is not None and metric.rpartition("@")[0] not in GATED:
                raise ValueError(
                    f"{where} {metric!r} has no value for each user: choose from {list(GATED)}, such as HR@{ks[0]}"
                )
        for name in self.slices:
            if name not in slices:
                raise ValueError(f"promotion.slices names the unknown slice {name!r}: choose from {slices}")
        for task in self.calibration if isinstance(self.calibration, dict) else ():
            if task not in tasks:
                raise ValueError(f"promotion.calibration names the unknown task {task!r}: choose from {tasks}")
