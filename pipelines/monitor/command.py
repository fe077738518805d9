"""`recsys status`: how the daily runs of a workspace stand."""

from datetime import UTC, datetime

import typer

from pipelines.options import ConfigOption, SetOption, WorkspaceOption, open_run
from pipelines.terminal import JsonOption, console, print_json


def status(
    config: ConfigOption = "demo", root: WorkspaceOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:  # fmt: skip
    """Show the days of a workspace, its champion, and the alarms that stand on the newest day.

    Exit code 1 when an alarm stands.

    Example: recsys status --config shop.yaml --workspace runs/shop --json
    """
    from pipelines.monitor.status import read_status, show

    settings, workspace = open_run(config, set_, root)
    found = read_status(settings, workspace.root, datetime.now(UTC))
    if as_json:
        print_json(found.to_json())
    show(console, found)
    if found.alarms:
        raise typer.Exit(1)
