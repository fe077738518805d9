"""Find the shipped config whose adapter fits a folder of raw logs."""

from pathlib import Path

from pipelines.workspace import CONFIGS
from recsys.config import RunConfig, load
from recsys.data.source import check_expressions
from recsys.errors import InputError


def detect(folder: Path) -> Path:
    """The one shipped config that can read `folder`. Raises InputError when none or several can, saying why each cannot."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name the folder of the raw logs with --data")
    fitting, reasons = [], []
    for path in sorted(CONFIGS.glob("*.yaml")):
        try:
            _try(load(path), folder)
            fitting.append(path)
        except InputError as error:
            reasons.append(f"{path.stem}: {error}")
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(path.stem for path in fitting)
    if fitting:
        raise InputError(f"{folder} fits several shipped configs ({names}): choose one with --config")
    raise InputError(f"{folder} fits no shipped config: write one (docs/own-data.md) and give it with --config ({'; '.join(reasons)})")


def _try(config: RunConfig, folder: Path) -> None:
    for source in (config.data.events, config.data.users, config.data.items):
        if source is not None:
            check_expressions(source.scan(folder), source.expressions, source.files(folder)[0])
