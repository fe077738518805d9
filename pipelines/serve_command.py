"""`recsys serve`: a server of a run's bundle, or of what an alias of a registered model points to."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from pipelines.options import ConfigOption, StoreOption, WorkspaceOption, open_run, same_run
from pipelines.terminal import console, say_next
from recsys.errors import InputError
from serving.settings import STATE_VARIABLE

_STATE, _LIMITS, _SPEED = "State and journal", "Safety", "Speed"


def serve(
    config: ConfigOption = "demo", root: WorkspaceOption = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="folder of a bundle; an export to it goes live", show_default="the run's")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="serve a registered model of the MLflow store instead")] = None,
    alias: Annotated[str, typer.Option("--alias", help="of --model; the version that it points to goes live")] = "champion",
    store: StoreOption = None,
    every: Annotated[float, typer.Option("--every", min=0.1, help="seconds between looks at the alias")] = 2.0,
    live: Annotated[
        Path | None,
        typer.Option("--live", help="the server's folder: bundles, state, journal, keys", show_default="beside the bundle"),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="address to listen on; 0.0.0.0: all")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 3000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="processes, each with its own copy of the model")] = 1,
    open_: Annotated[bool, typer.Option("--open", help="listen beyond this machine without API keys")] = False,
    keys: Annotated[
        bool | None, typer.Option("--keys/--no-keys", help="whether requests need a key", show_default="if there are keys")
    ] = None,
    requests_per_s: Annotated[
        float | None, typer.Option(help="of one key, or address; 0: no limit", rich_help_panel=_LIMITS)
    ] = None,
    requests_per_day: Annotated[int | None, typer.Option(help="of one key; 0: no limit", rich_help_panel=_LIMITS)] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="of a request", rich_help_panel=_LIMITS)] = None,
    max_header_bytes: Annotated[int | None, typer.Option(help="request line and headers", rich_help_panel=_LIMITS)] = None,
    max_connections: Annotated[int | None, typer.Option(help="open at a time, each worker", rich_help_panel=_LIMITS)] = None,
    header_timeout_s: Annotated[float | None, typer.Option(help="for headers to arrive", rich_help_panel=_LIMITS)] = None,
    request_timeout_s: Annotated[float | None, typer.Option(help="body and answer together", rich_help_panel=_LIMITS)] = None,
    max_queue: Annotated[int | None, typer.Option(help="questions that may wait; then 503", rich_help_panel=_LIMITS)] = None,
    catalogue: Annotated[
        Path | None, typer.Option("--catalogue", help="CSV or Parquet file of what is sold; watched", rich_help_panel=_LIMITS)
    ] = None,
    page: Annotated[bool | None, typer.Option("--page/--no-page", help="the page at /", rich_help_panel=_LIMITS)] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state", envvar=STATE_VARIABLE, rich_help_panel=_STATE, show_default="sqlite",
            help="sqlite, or redis://HOST:PORT/0; one with a password only by the variable",
        ),
    ] = None,
    state_timeout_ms: Annotated[int | None, typer.Option(help="then answer without", rich_help_panel=_STATE)] = None,
    max_events: Annotated[int | None, typer.Option(help="of a user, that are kept", rich_help_panel=_STATE)] = None,
    ttl_s: Annotated[int | None, typer.Option(help="how long a user's events are kept", rich_help_panel=_STATE)] = None,
    journal: Annotated[bool | None, typer.Option("--journal/--no-journal", help="log all", rich_help_panel=_STATE)] = None,
    fsync: Annotated[bool | None, typer.Option("--fsync/--no-fsync", help="to the disk first", rich_help_panel=_STATE)] = None,
    logged_requests: Annotated[float | None, typer.Option(help="share logged in full", rich_help_panel=_STATE)] = None,
    clock: Annotated[str | None, typer.Option(help="own, or requests: to play days in seconds", rich_help_panel=_STATE)] = None,
    threads: Annotated[int | None, typer.Option(help="of the graphs, each worker", rich_help_panel=_SPEED)] = None,
    max_batch: Annotated[int | None, typer.Option(help="questions scored at once", rich_help_panel=_SPEED)] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="then a list without the model", rich_help_panel=_SPEED)] = None,
) -> None:  # fmt: skip
    """Serve recommendations over HTTP until Ctrl-C: lists, events, and a page to try them.

    A new export, or a promotion, goes live without a restart.

    Examples: recsys serve --config demo

    recsys serve --model demo --alias champion --store http://127.0.0.1:5000 --workers 2

    RECSYS_STATE=redis://:PASSWORD@127.0.0.1:6379/0 recsys serve --host 0.0.0.0 --keys
    """
    folder = None if model else (bundle or open_run(config, None, root)[1].bundle)
    if model and bundle:
        raise InputError("--model and --bundle are two sources: name one of them")
    home = Path("runs") / str(model) if folder is None else folder.parent
    place = (live or home / "live").absolute()
    from serving.run import check_open

    _check_state(state)
    keys = (place / "keys.json").exists() if keys is None else keys
    check_open(host, keys=keys, allowed=open_)
    settings = _settings(
        live=place, workers=workers, keys=keys, state=state, state_timeout_ms=state_timeout_ms, max_events=max_events,
        ttl_s=ttl_s, journal=journal, fsync=fsync, logged_requests=logged_requests, clock=clock, threads=threads,
        max_batch=max_batch, deadline_ms=deadline_ms, requests_per_s=requests_per_s, requests_per_day=requests_per_day,
        max_body_bytes=max_body_bytes, max_queue=max_queue, catalogue=None if catalogue is None else catalogue.absolute(),
        page=page, max_header_bytes=max_header_bytes, max_connections=max_connections, header_timeout_s=header_timeout_s,
        request_timeout_s=request_timeout_s,
    )  # fmt: skip
    _say(f"{model}@{alias}" if folder is None else str(folder), host, port, settings)
    if folder is None:
        from pipelines.follow import Follower, serve_alias

        follower = Follower(place, str(model), alias, uri=store)
        say_next(f"recsys promote --config {config}{_store(store)}", f"recsys rollback --config {config}{_store(store)}")
        raise typer.Exit(serve_alias(settings, follower, host=host, port=port, every_s=every))
    from serving.run import serve as serve_folder

    if bundle is None:
        say_next(f"recsys export {same_run(config, root)}   (what it writes goes live here)")
    serve_folder(folder, settings, host=host, port=port)


def _check_state(state: str | None) -> None:
    if state is not None and urlsplit(state).password and state != os.environ.get(STATE_VARIABLE):
        raise InputError(
            f"--state carries a password, which every user of this machine could read: set {STATE_VARIABLE} instead"
        )


def _settings(**given: Any) -> "Any":
    from serving.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{option} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def _say(what: str, host: str, port: int, settings: Any) -> None:
    from serving.api.keys import read_keys

    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    key = " -H 'authorization: Bearer KEY'" if settings.keys else ""
    console.print(
        f"[bold]serving[/] {what} on {host}:{port}, its folder is {settings.live}; Ctrl-C stops",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if settings.keys and not read_keys(settings.live):
        console.print(
            f"[bold]no keys yet[/], so that nobody gets in: recsys keys add --live {shlex.quote(str(settings.live))}",
            soft_wrap=True,
        )
    if settings.page:
        console.print(f"page: [cyan]{url}/[/]", highlight=False)
    body = '{"history": [], "k": 5}'
    console.print(
        f"try:  [cyan]curl -H 'content-type: application/json'{key} -d '{body}' {url}/recommend[/]",
        highlight=False, soft_wrap=True, markup=True,
    )  # fmt: skip


def _store(store: str | None) -> str:
    return f" --store {shlex.quote(store)}" if store else ""
