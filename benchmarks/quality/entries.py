"""The entries of the leaderboard: YAML files beside this one, in the manner of BARS (Zhu et al. 2022,
https://arxiv.org/abs/2205.09626): config, data, seeds, what is expected and how far a training may be from it.

Differs from BARS: what is expected has a tolerance by which an entry fails, floors are counted anew beside the model, and the
rules of evaluation are held by a hash.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from pipelines.workspace import CONFIGS
from recsys.config import RunConfig, load
from recsys.errors import InputError
from recsys.spec import Spec

FOLDER = Path(__file__).parent
STEPS = ("prepare", "train", "evaluate")


class Known(Spec):
    value: float
    tolerance: float = Field(gt=0, description="how far one training may be from it, to either side")


class Published(Spec):
    method: str
    source: str
    metrics: dict[str, float] = Field(min_length=1)


class Entry(Spec):
    """`config` is the name of a shipped one or of a file beside the entry; `writes` makes the raw folder first, where the data
    set is not one that a config can read; `seeds` are those that `expected` was measured with."""

    title: str
    data: str = Field(description="folder below --data")
    config: str
    writes: Literal["coat"] | None = None
    seeds: tuple[int, ...] = Field(min_length=1)
    minutes: float = Field(gt=0, description="of one seed, about")
    hardware: str
    protocol: str = Field(description="Protocol.line of the config: the rules that the values were measured by")
    tolerance_from: str
    expected: dict[str, Known] = Field(min_length=1, description="metric as MLflow names it")
    shown: tuple[str, ...] = Field((), description="metrics that no tolerance is known for")
    published: tuple[Published, ...] = ()
    note: str = ""

    @cached_property
    def config_path(self) -> Path:
        shipped = CONFIGS / f"{self.config}.yaml"
        return shipped if shipped.is_file() else FOLDER / self.config

    def load(self, seed: int) -> RunConfig:
        return load(self.config_path, f"seed={seed}")

    def commands(self, raw: Path, workspace: Path, seed: int) -> dict[str, list[str]]:
        """The words after `recsys` by step, as a person would type them."""
        named = self.config if self.config_path.parent == CONFIGS else str(self.config_path)
        common = ["--config", named, "--workspace", str(workspace), "--set", f"seed={seed}"]
        return {step: [step, *common, *(["--data", str(raw)] if step == "prepare" else [])] for step in STEPS}


def read(path: Path) -> Entry:
    try:
        return Entry.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def entries() -> dict[str, Entry]:
    """By the name of the file."""
    return {path.stem: read(path) for path in sorted(FOLDER.glob("*.yaml")) if not path.stem.endswith("-config")}


def differences(found: Mapping[str, float], known: Mapping[str, Known]) -> list[str]:
    """A sentence for every metric that is not there or not within its tolerance."""
    said = []
    for name, entry in known.items():
        if name not in found:
            said.append(f"{name} is missing")
        elif not abs(found[name] - entry.value) <= entry.tolerance:
            said.append(f"{name} is {found[name]:.4f}, not within {entry.tolerance} of {entry.value}")
    return said
