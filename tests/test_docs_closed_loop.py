"""The page on the closed loop, and its benchmark, name policies that can be played."""

import re
from pathlib import Path

import pytest

from benchmarks.closed_loop import AGAINST, CONFIG, POLICIES
from pipelines.loop.plan import BASE, LoopConfig, policies
from pipelines.workspace import config_path
from recsys.config import RunConfig, load

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "closed-loop.md").read_text()
SHOWN = [text for text in re.findall(r"--vary '(.+?)'", PAGE) if text != "NAME: {key: value}"]
DAY_S = 86_400


def load_demo(*overrides: str) -> RunConfig:
    return load(config_path("demo"), *overrides)


def test_all_examples_are_found() -> None:
    assert len(SHOWN) == PAGE.count("--vary '") - 1 == 6


@pytest.mark.parametrize("text", SHOWN)
def test_every_example_can_be_played(text: str) -> None:
    base, policy = policies(LoopConfig(), [text], load_demo)
    assert (base.name, policy.name) == (BASE, text.partition(":")[0])
    _require_labels_in_time(policy.config)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_of_the_benchmark_can_be_played(name: str) -> None:
    _, policy = policies(LoopConfig(), [POLICIES[name]], lambda *more: load_demo(*CONFIG, *more))
    assert policy.name == name
    _require_labels_in_time(policy.config)


def test_the_policies_that_others_are_held_against_are_there() -> None:
    assert set(AGAINST) <= {BASE, *POLICIES}


def _require_labels_in_time(config: RunConfig) -> None:
    """Each day's model begins with an empty memory: a label that comes after the day's last page teaches nothing."""
    memory = config.serving.error_memory
    assert memory is None or memory.window_s < DAY_S
