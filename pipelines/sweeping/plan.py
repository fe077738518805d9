"""What a sweep is asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.sweeping.space import Point, Space, override
from recsys.config import RunConfig, load


@dataclass(frozen=True)
class Plan:
    """What is searched, and how long. `path` is the config's, `overrides` are those of --set."""

    name: str
    space: Space
    path: Path
    overrides: Sequence[str]
    trials: int
    workers: int = 1
    seeds: int = 0
    pruning: str = "median"
    keep: int = 1
    anew: bool = False

    def load(self, *more: str) -> RunConfig:
        return load(self.path, *self.overrides, *more)

    def at(self, point: Point) -> RunConfig:
        """The config of a point of the space."""
        return self.load(*(override(key, value) for key, value in self.space.values(point).items()))
