"""`recsys rollback`: take the champion back."""

from typing import Annotated

import typer

from pipelines.options import ConfigOption, SetOption, StoreOption
from pipelines.terminal import JsonOption, console, print_json, say_next
from pipelines.workspace import config_path


def rollback(
    config: ConfigOption = "demo", set_: SetOption = None, store: StoreOption = None,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="the version to go back to", show_default="the one before the champion")
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Make the version before the champion the champion again. A second time changes nothing.

    Example: recsys rollback --config ml-1m --to 3
    """
    from pipelines.promotion.rollback import rollback
    from recsys.config import load

    settings = load(config_path(config), *(set_ or []))
    done = rollback(settings.name, to=to, max_parity_error=settings.promotion.parity, uri=store)
    if as_json:
        print_json(done.to_json())
    console.print(f"[bold]{done.says}[/]", highlight=False)
    say_next(f"recsys serve --config {config}")
