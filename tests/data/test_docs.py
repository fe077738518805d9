"""The pages on data say what the code does: their examples run, and no key is left out."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml

from recsys.config import load
from recsys.data import Data
from recsys.data.build import build
from recsys.data.filters import Filters
from recsys.data.labels import LabelSpec
from recsys.data.rules import REASONS
from recsys.data.source import Events, Table
from recsys.data.splits import Split
from recsys.data.steps import Step
from recsys.dataset import Dataset
from recsys.features import PointInTime

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def shop(write: Callable[..., Path], raw: Path, tmp_path: Path) -> Dataset:
    """The dataset of the worked example."""
    for name, content in zip(("clicks.csv", "products.csv"), blocks("own-data.md", "csv"), strict=True):
        write(name, content)
    (tmp_path / "shop.yaml").write_text(blocks("own-data.md", "yaml")[0])
    build(load(tmp_path / "shop.yaml").data, raw, tmp_path / "dataset")
    return Dataset(tmp_path / "dataset")


def test_the_worked_example_works(shop: Dataset) -> None:
    assert shop.user_ids[2:] == ["v1", "v2"]
    assert [shop.item_ids[i] for i in shop.item_E] == ["lamp-3", "rug-8", "sofa-1", "sofa-1", "rug-8", "lamp-3"]
    assert shop.vocabulary("item", "tags") == ["fabric", "handmade", "led", "steel", "wool"]
    assert shop.manifest["report"]["tasks"]["purchase"]["labelled"] == 6


@pytest.fixture
def grown(write: Callable[..., Path], raw: Path, tmp_path: Path) -> Dataset:
    """A log of three days, the third of which was appended."""
    events = {"path": "log", "user": "u", "item": "i", "time": "t", "columns": {"t": "int"}, "arrives": "by_file"}
    data = Data.model_validate({"events": {**events, "labels": {"even": "t % 2 = 0"}}})
    for day, users in enumerate(["ba", "ab", "cb"]):
        rows = [f"{user},{user}{n % 3},{1_700_000_000 + 86_400 * day + 10 * n}" for n in range(5) for user in users]
        write(f"log/{day}.csv", "\n".join(["u,i,t", *rows]))
        if day:
            build(data, raw, tmp_path / "dataset")
    return Dataset(tmp_path / "dataset")


def read_with_the_page(data: Dataset, example: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(data.folder.parent)
    names: dict[str, Any] = {}
    exec(blocks("dataset.md", "python")[0].replace("x = 0 ", f"x = {example} "), names)
    return names


def test_the_reader_of_the_page_reads_it(shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_with_the_page(shop, 3, monkeypatch)
    assert [shop.item_ids[i] for i in read["history"]] == ["lamp-3", "rug-8"]


def test_the_reader_of_the_page_reads_several_segments(grown: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert grown.manifest["segments"]["timeline"] == ["000", "001"]
    b = grown.user_ids.index("b")
    example = int(np.flatnonzero(np.asarray(grown.examples["user"]) == b)[-1])
    read = read_with_the_page(grown, example, monkeypatch)
    assert [grown.item_ids[i] for i in read["history"]] == (["b0", "b1", "b2", "b0", "b1"] * 3)[:-1]
    assert read["split"].tolist() == np.asarray(grown.examples["split"]).tolist()
    whole = np.concatenate([read["timeline"](u) for u in range(grown.num_users)])
    assert whole.tolist() == np.asarray(grown.item_E).tolist()


def kinds(union: Any) -> tuple[Any, ...]:
    return get_args(get_args(union)[0])


SPECS = [Data, Events, Table, Filters, *kinds(Split), *kinds(LabelSpec), *kinds(Step)]


@pytest.mark.parametrize(
    ("page", "spec"), [*(("own-data.md", spec) for spec in SPECS), *(("features.md", spec) for spec in kinds(PointInTime))]
)
def test_every_key_of_the_config_is_explained(page: str, spec: Any) -> None:
    text = (DOCS / page).read_text()
    for key, field in spec.model_fields.items():
        name = field.default if key == "kind" else key
        assert re.search(rf"`{name}`|\*\*{name}\*\*", text), name


def test_every_rule_of_the_quarantine_is_explained() -> None:
    text = (DOCS / "own-data.md").read_text()
    for rule, reason in REASONS.items():
        assert f"`{rule}`" in text, rule
        assert reason.replace("{column}", "") in text, reason


@pytest.mark.parametrize("block", [pytest.param(block, id=str(n)) for n, block in enumerate(blocks("own-data.md", "yaml")[1:])])
def test_the_short_examples_are_valid(block: str) -> None:
    shown = yaml.safe_load(block)
    data = Data.model_validate({"events": {"path": "log.csv", "user": "uid", "item": "sku", "time": "ts"}, **shown})
    assert set(shown) <= data.model_fields_set


def test_links_lead_to_sections_that_exist() -> None:
    for page in ("own-data.md", "dataset.md"):
        for target, section in re.findall(r"\]\(([\w-]*(?:\.md)?)#?([\w-]*)\)", (DOCS / page).read_text()):
            if section:
                titles = re.findall(r"^#+ (.*)$", (DOCS / (target or page)).read_text(), re.MULTILINE)
                assert section in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], page


def test_every_column_and_manifest_key_is_explained(shop: Dataset) -> None:
    page = (DOCS / "dataset.md").read_text()
    tables = [*shop.examples, *shop._users.column_names, *shop._items.column_names]
    for key in [*shop.manifest, *shop.manifest["report"], *tables]:
        general = re.sub(
            r"^(label|context|feature|asof)_.*", lambda found: found[1] + "_" + ("TASK" if found[1] == "label" else "NAME"), key
        )
        assert f"`{general}`" in page, general
    written = {path.name for path in shop.folder.rglob("*") if path.is_file()}
    assert all(name in page for name in written)
