"""The small bundle of the serving tests, for benchmarks that measure what does not depend on a model."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "serving"


def small_bundle(folder: Path) -> Path:
    sys.path.append(str(TESTS))
    from tiny_bundle import build_bundle

    built: Path = build_bundle(folder)
    return built
