"""What the commands share: a console for people on the standard error, the standard output for machines."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

console = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object instead of tables")]


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=str))


def say_next(*commands: str) -> None:
    """What to run after this command."""
    console.print("next: " + "   or: ".join(f"[cyan]{escape(each)}[/]" for each in commands), highlight=False, soft_wrap=True)
