"""The page on training says what the code does: no key or kind is missing, defaults are right, examples and errors are real."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from recsys.augment import FeatureMask, HistoryView
from recsys.balance import Balance
from recsys.config import (
    EvaluationConfig,
    ItemViewsConfig,
    RankerConfig,
    RetrieverConfig,
    RunConfig,
    SequenceViewsConfig,
    ServingConfig,
)
from recsys.contrast import Uniformity, ViewLoss
from recsys.debias import Debias, Propensity
from recsys.denoise import Denoiser
from recsys.fit import Fit
from recsys.generate.decoder import Decoder
from recsys.generator_config import GeneratorConfig
from recsys.heads import RetrievalLoss
from recsys.heads.matryoshka import Matryoshka
from recsys.heads.regression import Regression
from recsys.heads.similarity import Similarity
from recsys.models import Encoder, History, Interaction, Sharing
from recsys.models.item_tower import ItemTower
from recsys.models.managed_collision import ManagedCollision
from recsys.policy import PolicyObjective, Reward
from recsys.policy.rewards.constrained import Constrained
from recsys.policy_config import PolicyConfig, PolicyFit, ProposalsConfig
from recsys.ranker_config import RankerFit
from recsys.rerank import Reranker
from recsys.sample import HardNegatives, SharedNegatives

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text()
DATA = {
    "events": {
        "path": "log.csv", "user": "u", "item": "i", "time": "t", "columns": {"t": "int"},
        "labels": {"like": "a = 1", "love": "b = 1", "click": "c = 1", "purchase": "d = 1"},
    },
    "items": {"path": "items.csv", "id": "i", "features": {"genres": "genres", "year": "year"}},
}  # fmt: skip
PLAIN = {
    "retriever": RetrieverConfig, "ranker": RankerConfig, "fit": Fit, "tower": ItemTower, "matryoshka": Matryoshka,
    "tables": ManagedCollision, "regression": Regression, "evaluation": EvaluationConfig, "serving": ServingConfig,
    "sequence_views": SequenceViewsConfig, "item_views": ItemViewsConfig, "generator": GeneratorConfig, "decoder": Decoder,
    "policy": PolicyConfig, "proposals": ProposalsConfig, "constrained": Constrained,
}  # fmt: skip
UNIONS = {
    "encoder": Encoder, "similarity": Similarity, "loss": RetrievalLoss, "negatives": SharedNegatives, "history": History,
    "interaction": Interaction, "sharing": Sharing, "balance": Balance, "denoise": Denoiser,
    "uniformity": Uniformity, "view": HistoryView, "feature_mask": FeatureMask, "view_loss": ViewLoss,
    "debias": Debias, "propensity": Propensity, "hard": HardNegatives, "objective": PolicyObjective, "reward": Reward,
    "rerank": Reranker,
}  # fmt: skip
OWN_FITS = {"ranker": RankerFit, "policy": PolicyFit}


def kinds(union: Any) -> dict[str, Any]:
    """The specs of a union, or of a family that has one member so far, by kind."""
    found = get_args(union)[0] if get_args(union) else union
    return {spec.model_fields["kind"].default: spec for spec in get_args(found) or (found,)}


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    text = PAGE.split(f"\n### {section}\n")[1].split("\n#")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line] for line in lines[2:]]


def assert_default(field: FieldInfo, shown: str) -> None:
    if field.is_required():
        assert shown == "required"
        return
    default = field.get_default(call_default_factory=True)
    assert TypeAdapter(field.annotation).validate_python(yaml.safe_load(shown)) == default


@pytest.mark.parametrize("section", PLAIN)
def test_every_key_is_explained_with_its_default(section: str) -> None:
    fields = PLAIN[section].model_fields
    assert [key for key, *_ in rows(section)] == list(fields)
    for key, shown, _ in rows(section):
        assert_default(fields[key], shown)


@pytest.mark.parametrize("section", OWN_FITS)
def test_a_part_shows_the_settings_of_fit_in_which_it_differs(section: str) -> None:
    own = OWN_FITS[section].model_fields
    [shown] = [default for key, default, _ in rows(section) if key == "fit"]
    changed = {key: field.default for key, field in own.items() if field.default != Fit.model_fields[key].default}
    assert yaml.safe_load(shown) == changed


@pytest.mark.parametrize("section", UNIONS)
def test_every_kind_is_explained_with_its_keys(section: str) -> None:
    specs = kinds(UNIONS[section])
    assert {kind for kind, *_ in rows(section)} == set(specs)
    for kind, spec in specs.items():
        keys = [key for key in spec.model_fields if key != "kind"]
        shown = {key: default for each, key, default, _ in rows(section) if each == kind}
        assert list(shown) == (keys or [""])
        for key in keys:
            assert_default(spec.model_fields[key], shown[key])


def yaml_blocks() -> list[tuple[str, str]]:
    names = ("docs/training.md", "README.md", "CONTRIBUTING.md")
    found = [
        (name, block) for name in names for block in re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    ]
    return [(name, block) for name, block in found if "data" not in yaml.safe_load(block)]


@pytest.mark.parametrize(("name", "block"), yaml_blocks())
def test_the_examples_are_valid(name: str, block: str) -> None:
    shown = yaml.safe_load(block)
    config = RunConfig.model_validate({"name": "shown", "data": DATA, **shown})
    assert set(shown) <= config.model_fields_set


def test_there_are_examples() -> None:
    assert {name for name, _ in yaml_blocks()} >= {"docs/training.md", "README.md"}


def test_the_errors_are_those_of_the_code() -> None:
    files = [path for folder in ("recsys", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in files))
    table = PAGE.split("## What can go wrong")[1].split("\n## ")[0]
    errors = re.findall(r"^\| `(.+?)` \| ", table, re.MULTILINE)
    assert len(errors) > 10
    assert [error for error in errors if error not in code] == []


def test_links_lead_to_sections_that_exist() -> None:
    titles = [title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)]
    for page, section in re.findall(r"\]\(([\w-]*(?:\.md)?)#?([\w-]*)\)", PAGE):
        assert not page or (ROOT / "docs" / page).is_file(), page
        assert not section or section in titles, section
    decisions = (ROOT / "docs" / "decisions.md").read_text()
    for number in re.findall(r"\[decision (\d+)\]", PAGE):
        assert f"## {number}. " in decisions, number
