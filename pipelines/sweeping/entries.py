"""The values that a key of a sweep may take: a range of numbers, or choices of any kind."""

import math
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import model_validator

from recsys.spec import Spec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

COUNTABLE = 10_000  # a space of more points is searched as if it had no end


class Range(Spec):
    """Numbers from low to high, both included: whole ones where both bounds are."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: swap them")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, and it is {self.low}: raise it, or leave log out")
        if self.step is not None and (self.log or self.step <= 0 or (self.whole and self.step != int(self.step))):
            raise ValueError(f"step {self.step} must be above 0, whole between whole bounds, and stand without log")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), self.last, log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), self.last, log=self.log, step=self.step)

    @property
    def last(self) -> Any:
        """The highest value that is ever taken: the steps may not end at `high`."""
        step = self.step or (1 if self.whole else None)
        if step is None:
            return float(self.high)
        last = self.low + math.floor((self.high - self.low) / step + 1e-9) * step
        return int(last) if self.whole else float(last)

    def probes(self) -> list[Any]:
        return [self.low, self.last]

    def value(self, label: Any) -> Any:
        return label

    def points(self) -> list[Any] | None:
        """All values; None where there is no end of them."""
        step = self.step or (1 if self.whole else None)
        if step is None:
            return [self.low] if self.low == self.high else None
        count = round((self.last - self.low) / step) + 1
        return [self.low + place * step for place in range(count)] if count <= COUNTABLE else None

    def holding(self, value: Any) -> Any | None:
        """The value where it is one of these, else None."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        known = self.points()
        return value if known is None else next((each for each in known if math.isclose(each, value)), None)


class Choices(Spec):
    """Any values of YAML, whole sections included. A value that is a section is called by its YAML."""

    values: tuple[Any, ...]

    @model_validator(mode="after")
    def _differ(self) -> "Choices":
        if not self.values:
            raise ValueError("there is nothing to choose from: name at least one value")
        names = [str(label) for label in self.labels]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} stands there twice: leave one out")
        return self

    @property
    def labels(self) -> list[Any]:
        """What Optuna takes for a choice: None, a number or a text."""
        return [flow(each) if isinstance(each, dict | list) else each for each in self.values]

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.labels)

    def probes(self) -> list[Any]:
        return list(self.values)

    def value(self, label: Any) -> Any:
        return self.values[[(type(each), each) for each in self.labels].index((type(label), label))]

    def points(self) -> list[Any] | None:
        return self.labels


def flow(value: Any) -> str:
    """YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
