"""What benchmarks of several simulated worlds are asked on the command line."""

import argparse
from pathlib import Path

from benchmarks import measure


def parser(module: str, about: str | None, folder: str) -> argparse.ArgumentParser:
    """With `--seeds`, `--set` and `--work`. `about`: the docstring of the module; `folder`: where `--work` is by default."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=(about or "").splitlines()[0])
    found.add_argument("--seeds", type=int, nargs="+", default=[1], help="a world for each")
    found.add_argument("--set", dest="overrides", action="append", default=[], help="override a key of every config")
    found.add_argument(
        "--work", type=Path, default=measure.DATA / folder, help="where worlds and what is made in them are kept"
    )
    return found
