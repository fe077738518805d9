"""`recsys schedule`: the daily run on Dagster, or as a line for cron."""

import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from pipelines.options import ConfigOption, SetOption, StoreOption, WorkspaceOption, open_run
from pipelines.schedule.cron import crontab
from pipelines.schedule.run import check_installed, run
from pipelines.schedule.target import Target
from pipelines.terminal import console
from pipelines.workspace import CONFIGS
from recsys.errors import InputError

LOOPBACK = ("127.0.0.1", "::1")


def schedule(
    config: ConfigOption = "demo",
    data: Annotated[Path | None, typer.Option("--data", help="folder of the raw logs, in daily partitions")] = None,
    root: WorkspaceOption = None, set_: SetOption = None, store: StoreOption = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="URL of a running endpoint that is to reload")] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="time of day in UTC at which the day before is run", show_default="none")
    ] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="seconds between looks at the raw folder")] = 60,
    retries: Annotated[int, typer.Option("--retries", min=0, help="of a failed step")] = 3,
    retry_s: Annotated[float, typer.Option("--retry-delay", help="seconds before the first retry; it doubles")] = 60.0,
    stale_h: Annotated[float, typer.Option("--stale-after", help="hours after which the champion counts as stale")] = 36.0,
    host: Annotated[str, typer.Option("--host", help="address of Dagster's page")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="of Dagster's page")] = 3001,
    open_: Annotated[bool, typer.Option("--open", help="let other machines in, to a page without a password")] = False,
    print_cron: Annotated[bool, typer.Option("--print-cron", help="print a line for cron instead, and end")] = False,
) -> None:  # fmt: skip
    """Run each day as its log arrives, with retries, a history and a page: Dagster on files of the workspace, until Ctrl-C.

    Examples: recsys schedule --config my.yaml --data logs --workspace runs/mine

    recsys schedule --config my.yaml --data logs --workspace runs/mine --at 03:00 --print-cron
    """
    from pipelines.schedule.arriving import find_days
    from serving.run import check_free

    settings, workspace = open_run(config, set_, root)
    raw = (data or workspace.raw).absolute()
    try:
        target = Target(
            config=config if (CONFIGS / f"{config}.yaml").is_file() else str(Path(config).absolute()), data=raw,
            workspace=workspace.root.absolute(), directory=Path.cwd(), overrides=tuple(set_ or ()),
            store=store or (os.environ.get("MLFLOW_TRACKING_URI") if print_cron else None),  # cron knows no variable of a shell
            events=settings.data.events.model_dump(mode="json"), daily=settings.daily,
            first_day=next(iter(find_days(settings.data.events, raw))), endpoint=endpoint, at=at,
            every_s=every, retries=retries, retry_s=retry_s, stale_h=stale_h,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}") from error
    if print_cron:
        typer.echo(crontab(target))
        return
    check_installed()
    if host not in LOOPBACK and not open_:
        raise InputError(
            f"--host {host} lets other machines in, and Dagster's page asks for no password: put a proxy that does "
            "before it, or pass --open"
        )
    check_free(host, port)
    console.print(f"Dagster's page on http://{host}:{port}, its files in {target.workspace / 'dagster'}; Ctrl-C stops it")
    if status := run(target, host, port):
        raise typer.Exit(status)
