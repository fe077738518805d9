"""`recsys forget`: remove users from data, server state and model."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.options import ConfigOption, SetOption, StoreOption, WorkspaceOption, open_run, same_run
from pipelines.terminal import JsonOption, console, print_json, say_next
from recsys.errors import InputError


def forget(
    users: Annotated[list[str], typer.Argument(help="external ids, as the log has them", metavar="USER...")],
    config: ConfigOption = "demo", set_: SetOption = None, root: WorkspaceOption = None,
    data: Annotated[Path | None, typer.Option("--data", help="folder of the raw logs", show_default="the run's")] = None,
    method: Annotated[
        str, typer.Option("--method", help="retrain: exact; dampen, unlearn: approximate, without training anew")
    ] = "retrain",
    live: Annotated[Path | None, typer.Option("--live", help="folder `live` of a server, on this host")] = None,
    url: Annotated[str | None, typer.Option("--url", help="a running server that is to forget, too")] = None,
    api_key: Annotated[str | None, typer.Option("--api-key", help="for --url", envvar="RECSYS_API_KEY")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="of a daily run: delete the folders of the other days")] = False,
    store: StoreOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Remove users from raw files, dataset, server and model; attack the model before and after, and write a receipt.

    The raw files are rewritten. A killed run goes on where it stopped. The model that is served is the old one until the new
    one is promoted.

    Example: recsys forget u17 u42 --config demo --data runs/demo/raw --method retrain
    """
    from pipelines.forget.plan import METHODS
    from pipelines.forget.run import Request, forget, newest_trained

    chosen = next((each for each in METHODS if each == method), None)
    if chosen is None:
        raise InputError(f"--method {method!r} is unknown: choose {', '.join(METHODS)}")
    settings, workspace = open_run(config, set_, root)
    receipt = forget(
        Request(
            settings, data or workspace.raw, workspace.root, users, chosen, live=live, url=url, api_key=api_key, purge=purge,
            uri=store,
        ),
        None if as_json else console,
    )  # fmt: skip
    if as_json:
        print_json(receipt.model_dump(mode="json"))
    console.print(receipt.text(), highlight=False, markup=False)
    console.print(f"[bold]receipt[/] in {workspace.root / 'forgotten'}")
    if day := newest_trained(workspace.root):
        say_next(f"recsys daily {same_run(config, workspace.root, set_)} --data {data or workspace.raw} --day {day}")
    else:
        say_next(f"recsys promote {same_run(config, None, set_)}")
