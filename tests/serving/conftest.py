from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bundle import build_bundle


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("serving") / "bundle")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: build_bundle(tmp_path / "bundle", **options)
