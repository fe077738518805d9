"""Find the shipped config whose adapter fits a folder of raw logs."""

from pathlib import Path

from pipelines.workspace import CONFIGS
from recsys.config import RunConfig, load
from recsys.data.check import check_expressions
from recsys.errors import InputError


def detect(folder: Path) -> Path:
    """The one shipped config that can read `folder`. Raises InputError when none or several can, saying why each cannot."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name the folder of the raw logs with --data")
    fitting, reasons, paths = [], [], []
    for path in sorted(CONFIGS.glob("*.yaml")):
        config = load(path)
        paths.append(config.data.events.path)
        try:
            _try(config, folder)
            fitting.append(path)
        except InputError as error:
            if (folder / config.data.events.path).exists():
                reasons.append(f"{path.stem}: {error}")
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(path.stem for path in fitting)
        raise InputError(f"{folder} fits several shipped configs ({names}): choose one with --config")
    why = "; ".join(reasons) or f"it holds none of {', '.join(dict.fromkeys(paths))}"
    raise InputError(f"{folder} fits no shipped config ({why}): write one, see docs/own-data.md, and give it with --config")


def _try(config: RunConfig, folder: Path) -> None:
    for source in (config.data.events, config.data.users, config.data.items):
        if source is not None:
            check_expressions(source.scan(folder), source.expressions, source.files(folder)[0])
