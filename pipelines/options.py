"""Options that most commands have, and what they name."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.workspace import Workspace, config_path

if TYPE_CHECKING:  # importing it takes seconds, which `recsys --help` need not spend
    from recsys.config import RunConfig

ConfigOption = Annotated[str, typer.Option("--config", "-c", help="name of a shipped config, or the path of a YAML file")]
WorkspaceOption = Annotated[
    Path | None, typer.Option("--workspace", help="folder of the run's artefacts", show_default="runs/NAME of the config")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="override a config key, as in retriever.fit.epochs=3; repeatable")
]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="MLflow tracking URI", show_default="sqlite:///mlruns/mlflow.db")
]


def open_run(config: str, overrides: list[str] | None, root: Path | None) -> "tuple[RunConfig, Workspace]":
    """The config, and the folder of its run. Raises InputError."""
    from recsys.config import load

    settings = load(config_path(config), *(overrides or []))
    return settings, Workspace(root or Path("runs") / settings.name)


def same_run(config: str, root: Path | None, overrides: list[str] | None = None) -> str:
    """The options that name the same run again."""
    words = ["--config", config, *(["--workspace", str(root)] if root else [])]
    return shlex.join([*words, *(word for each in overrides or [] for word in ("--set", each))])


def given(**options: Any) -> dict[str, Any]:
    """The options that were said, by name."""
    return {name: value for name, value in options.items() if value is not None}
