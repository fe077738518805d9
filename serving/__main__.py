"""A server and its keys without the `recsys` command, which needs all of training: what the container runs.

python -m serving serve --bundle /bundle --live /live --host 0.0.0.0 --set keys=true --set workers=2
python -m serving add-key --live /live --name shop --scope read
python -m serving revoke-key --live /live --name shop
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recsys.errors import InputError
from serving.api.keys import SCOPES, add_key, revoke_key
from serving.run import check_open, serve
from serving.settings import STATE_VARIABLE, Settings


def main() -> None:
    arguments = _parser().parse_args()
    try:
        match arguments.command:
            case "serve":
                settings = _settings(arguments.live.absolute(), arguments.set)
                check_open(arguments.host, keys=settings.keys, allowed=arguments.open)
                serve(arguments.bundle, settings, host=arguments.host, port=arguments.port)
            case "add-key":
                print(add_key(arguments.live, arguments.name, arguments.scope))
            case "revoke-key":
                revoke_key(arguments.live, arguments.name)
    except InputError as error:
        sys.exit(f"error: {error}")


def _settings(live: Path, overrides: list[str]) -> Settings:
    """`overrides`: KEY=VALUE, the value in JSON where it is no plain text."""
    fields: dict[str, Any] = {"live": live}
    if STATE_VARIABLE in os.environ:
        fields["state"] = os.environ[STATE_VARIABLE]
    for each in overrides:
        key, sign, value = each.partition("=")
        if not sign:
            raise InputError(f"--set is {each!r}: write KEY=VALUE, as in workers=2")
        try:
            fields[key] = json.loads(value)
        except ValueError:
            fields[key] = value
    try:
        return Settings(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--set {first['loc'][0]}: {first['msg']}; the keys are {', '.join(Settings.model_fields)}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve a bundle until it is stopped")
    serving.add_argument("--bundle", type=Path, required=True)
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--port", type=int, default=3000)
    serving.add_argument("--open", action="store_true", help="let other machines in without API keys")
    serving.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated")
    adding = commands.add_parser("add-key", help="make an API key and print it, once")
    adding.add_argument("--scope", action="append", choices=SCOPES, required=True)
    revoking = commands.add_parser("revoke-key", help="end an API key")
    for command in (serving, adding, revoking):
        command.add_argument("--live", type=Path, required=True, help="folder of the server's state")
    for command in (adding, revoking):
        command.add_argument("--name", required=True)
    return parser


if __name__ == "__main__":
    main()
