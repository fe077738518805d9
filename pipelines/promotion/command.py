"""`recsys promote`: make the candidate the champion."""

from typing import Annotated

import typer

from pipelines.options import ConfigOption, SetOption, StoreOption
from pipelines.terminal import JsonOption, console, print_json, say_next
from pipelines.workspace import config_path


def promote(
    config: ConfigOption = "demo", set_: SetOption = None, store: StoreOption = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="this version instead of the candidate", show_default="the candidate")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="judge, and change nothing")] = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Make the candidate the champion if it passes the gates of the config's `promotion` section.

    Exit code 1 if a gate fails, or if another version became champion meanwhile.

    Example: recsys promote --config ml-1m --set promotion.champion.mode=better --dry-run
    """
    from pipelines.promotion.promote import promote
    from pipelines.promotion.record import render, to_json
    from recsys.config import load

    settings = load(config_path(config), *(set_ or []))
    classes = [task for task in settings.tasks if task not in settings.regression]
    decision = promote(
        settings.name, settings.promotion, first_k=settings.evaluation.ks[0], tasks=classes, version=version, dry_run=dry_run,
        uri=store,
    )  # fmt: skip
    if as_json:
        print_json(to_json(decision))
    console.print(render(decision))
    say_next(
        *([f"recsys rollback --config {config}"] if decision.promoted else []),
        *([] if decision.refused else [f"recsys serve --config {config}"]),
        "recsys compare",
    )
    if decision.refused:
        raise typer.Exit(1)
