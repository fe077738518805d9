"""`recsys recommend`: a list for one user, or lists for all of them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.options import ConfigOption, WorkspaceOption, given, open_run
from pipelines.show import show_items
from pipelines.terminal import JsonOption, console, print_json
from recsys.errors import InputError

BundleOption = Annotated[Path | None, typer.Option("--bundle", help="folder of the bundle", show_default="the run's")]


def recommend(
    config: ConfigOption = "demo", root: WorkspaceOption = None, bundle: BundleOption = None,
    user: Annotated[str | None, typer.Option(help="external id of a user of the log")] = None,
    history: Annotated[str | None, typer.Option(help="item ids, oldest first, separated by commas, instead of a user")] = None,
    k: int = 10, exclude: Annotated[str | None, typer.Option(help="item ids to leave out, separated by commas")] = None,
    url: Annotated[str | None, typer.Option(help="ask this endpoint instead of opening the bundle here")] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="lists for all users of the bundle, into --out")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="with --all-users: the Parquet file to write")] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Recommend items to one user, from a bundle or a running endpoint; or to all users of a bundle, into a file.

    Example: recsys recommend --config ml-1m --user 42 --k 5
    or recsys recommend --config ml-1m --all-users --out recs.parquet --k 10
    """
    from serving.bundle.bundle import Bundle
    from serving.client import ask
    from serving.recommend import recommend as answer
    from serving.schema import Query, parse

    if all_users or out:
        if not (all_users and out) or user or history or exclude or url:
            raise InputError("--all-users goes with --out, --k, --config and --bundle: give both of --all-users and --out")
        from pipelines.batch_scoring import recommend_all

        written = recommend_all(bundle or open_run(config, None, root)[1].bundle, out, k, console=None if as_json else console)
        if as_json:
            print_json(written)
        console.print(f"[bold]{written['users']:,} lists[/] of {k} in {out}, {written['users_per_s']:,.0f} users/s")
        return
    query = given(
        user_id=user, history=history.split(",") if history else None, exclude=exclude.split(",") if exclude else None
    )
    if url:
        found = ask(url, **query, k=k)
    else:
        folder = bundle or open_run(config, None, root)[1].bundle
        found = answer(Bundle.load(folder), parse(Query, json.dumps({**query, "k": k}))).model_dump()
    if as_json:
        print_json(found)
    show_items(console, found)
