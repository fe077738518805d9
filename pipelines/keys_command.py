"""The `recsys keys` commands: who may ask a server."""

import math
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.options import ConfigOption, WorkspaceOption, open_run, same_run
from pipelines.terminal import JsonOption, console, print_json, say_next
from recsys.errors import InputError

keys_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="API keys of a server: add, list, revoke. A running server follows within a second.\n\n"
    "Example: recsys keys add --name shop --scope read --scope write",
)  # fmt: skip
LiveOption = Annotated[
    Path | None, typer.Option("--live", help="folder of the server's state", show_default="`live` beside the run's bundle")
]


@keys_app.command()
def add(
    name: Annotated[str, typer.Option("--name", help="who will use the key; letters, digits, dots, dashes")],
    scope: Annotated[list[str], typer.Option("--scope", help="read (lists), write (events), admin (models); may be repeated")],
    config: ConfigOption = "demo", root: WorkspaceOption = None, live: LiveOption = None,
    rate: Annotated[float | None, typer.Option(min=0, help="requests per second, in place of the server's limit")] = None,
    daily: Annotated[int | None, typer.Option(min=0, help="requests a day, in place of the server's limit")] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Make a key and show it once: only its hash is kept.

    Example: recsys keys add --name shop --scope read --scope write
    """
    from serving.api.keys import SCOPES, add_key

    if unknown := [each for each in scope if each not in SCOPES]:
        raise InputError(f"--scope is {unknown[0]!r}: use {', '.join(SCOPES)}")
    if rate is not None and not math.isfinite(rate):
        raise InputError(f"--rate is {rate}: give a number, or 0 for no limit")
    folder = _live(config, root, live)
    scopes = [each for each in SCOPES if each in scope]
    token = add_key(folder, name, scopes, requests_per_s=rate, requests_per_day=daily)
    if as_json:
        print_json({"name": name, "scopes": scopes, "key": token})
        return
    console.print(f"key [bold]{escape(name)}[/] for {', '.join(scopes)}; it is shown only now:", highlight=False)
    typer.echo(token)
    say_next(f"recsys serve --keys {same_run(config, root)}" + (f" --live {shlex.quote(str(live))}" if live else ""))


@keys_app.command("list")
def list_(
    config: ConfigOption = "demo", root: WorkspaceOption = None, live: LiveOption = None, as_json: JsonOption = False
) -> None:
    """Show the keys that there are, without the keys themselves.

    Example: recsys keys list
    """
    from serving.api.keys import read_keys

    keys = read_keys(_live(config, root, live))
    if as_json:
        print_json([key.model_dump(exclude={"sha256"}) for key in keys])
        return
    table = Table("name", "scopes", "created", "per second", "a day")
    for key in keys:
        table.add_row(key.name, ", ".join(key.scopes), key.created, _limit(key.requests_per_s), _limit(key.requests_per_day))
    console.print(table if keys else "no keys: add one with [cyan]recsys keys add[/]")


@keys_app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the key")],
    config: ConfigOption = "demo", root: WorkspaceOption = None, live: LiveOption = None,
) -> None:  # fmt: skip
    """End a key. Running servers refuse it within a second.

    Example: recsys keys revoke shop
    """
    from serving.api.keys import revoke_key

    revoke_key(_live(config, root, live), name)
    console.print(f"key [bold]{escape(name)}[/] is revoked", highlight=False)


def _live(config: str, root: Path | None, live: Path | None) -> Path:
    return live or open_run(config, None, root)[1].bundle.parent / "live"


def _limit(value: float | None) -> str:
    return "the server's" if value is None else f"{value:g}" if value else "none"
