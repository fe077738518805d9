"""The pages on data say what the code does: their examples run, and no key is left out."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.config import load
from recsys.data import Data
from recsys.data.build import build
from recsys.data.filters import Filters
from recsys.data.source import Events, Table
from recsys.data.split import GlobalTime, LeaveOneOut
from recsys.dataset import Dataset

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


def test_the_reader_of_the_page_reads_it(shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder.parent)
    names: dict[str, Any] = {}
    exec(blocks("dataset.md", "python")[0].replace("x = 0 ", "x = 3 "), names)
    assert [shop.item_ids[i] for i in names["history"]] == ["lamp-3", "rug-8"]


@pytest.mark.parametrize("spec", [Data, Events, Table, Filters, GlobalTime, LeaveOneOut])
def test_every_key_of_the_config_is_explained(spec: Any) -> None:
    page = (DOCS / "own-data.md").read_text()
    for key in spec.model_fields:
        assert f"`{key}`" in page, key


def test_every_column_and_manifest_key_is_explained(shop: Dataset) -> None:
    page = (DOCS / "dataset.md").read_text()
    for key in [*shop.manifest, *shop.examples, *shop._users.column_names, *shop._items.column_names]:
        general = re.sub(
            r"^(label|context|feature)_.*", lambda found: found[1] + "_" + ("TASK" if found[1] == "label" else "NAME"), key
        )
        assert f"`{general}`" in page, general
    written = {path.name for path in shop.folder.rglob("*") if path.is_file()}
    assert all(name in page for name in written)
