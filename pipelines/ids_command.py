"""The `recsys ids` command."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.options import ConfigOption, SetOption, StoreOption, WorkspaceOption, open_run, same_run
from pipelines.terminal import JsonOption, console, print_json, say_next


def ids(
    config: ConfigOption = "demo", root: WorkspaceOption = None, set_: SetOption = None,
    anew: Annotated[bool, typer.Option("--anew", help="make all ids from scratch, even where those there fit")] = False,
    store: StoreOption = None, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Give every item a semantic id, a short sequence of codes that a generator can learn to write, and say how good they are.

    Ids that fit the config and the dataset are kept, and new items get theirs beside them. Collapsed ids are refused.

    Example: recsys ids --config apao-office --set generator.ids.vectors.kind=content
    """
    from pipelines.semantic_ids import build_ids, log_ids
    from pipelines.workspace import open_dataset
    from recsys import track

    settings, workspace = open_run(config, set_, root)
    data = open_dataset(workspace, settings)
    with console.status("semantic ids") as status:
        manifest = build_ids(
            settings, data, workspace, anew=anew, say=lambda text: status.update(f"semantic ids: {escape(text)}")
        )
    if workspace.run_id is not None:
        with track.resume_run(workspace.run_id, uri=store) as run:
            log_ids(run, manifest)
    if as_json:
        print_json({name: manifest[name] for name in ("fingerprint", "built", "sizes", "quality")})
    show_ids(console, manifest)
    console.print(f"[bold]semantic ids[/] in {escape(str(workspace.semantic_ids))}: {manifest['built']}", highlight=False)
    say_next(f"recsys train {same_run(config, root, set_)}")


def show_ids(console: Console, manifest: dict[str, Any]) -> None:
    """A row for each level, then what holds for all of them."""
    found = manifest["quality"]
    table = Table(title=f"Semantic ids of {found['items']:,} items, sizes {manifest['sizes']}", title_justify="left")
    errors = ("error",) if "error" in found["levels"][0] else ()
    columns = ("level", "codes used", "usage", "entropy", "perplexity", "largest", "prefixes", "of one item", *errors)
    for column in columns:
        table.add_column(column, justify="right")
    for place, level in enumerate(found["levels"], 1):
        cells = [f"{level[name]:.3f}" for name in ("usage", "entropy")]
        cells += [f"{level['perplexity']:.1f}", f"{level['largest']:,}", f"{level['prefixes']:,}", f"{level['one_leaf']:.3f}"]
        table.add_row(str(place), f"{level['used']} of {level['size']}", *cells, *(f"{level[name]:.4f}" for name in errors))
    console.print(table)
    console.print(
        f"collisions before the last level {found['collision_rate']:.3f} (largest group {found['largest_group']}, "
        f"last level {found['last_level'] or 'left out'}), items without content {found['without_content']}"
        + "".join(f", {name} {found[name]:.3f}" for name in ("same_vector_rate", "overlap@10") if name in found),
        highlight=False, soft_wrap=True,
    )  # fmt: skip
