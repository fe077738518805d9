"""The `recsys sync` command."""

from dataclasses import asdict

from rich.markup import escape

from pipelines.options import StoreOption
from pipelines.terminal import JsonOption, console, print_json


def sync(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Send what runs have logged while the MLflow store was away. Other commands that open the store do it, too.

    Example: recsys sync --store http://tracking:5000
    """
    from recsys import track
    from recsys.track.store import shown

    before = track.waiting(store)
    for each in before:
        end = "" if each.ended else ", its process was killed"
        console.print(f"  run {each.run} {escape(each.name)}: {each.entries} entries{end}", highlight=False, soft_wrap=True)
    sent = track.sync(store)
    after = track.waiting(store)
    if as_json:
        print_json({"sent": sent, "waiting": [asdict(each) for each in after]})
    address = escape(shown(track.resolve_uri(store)))
    console.print(f"[bold]{sent} sent[/] to {address}, {len(after)} waiting", highlight=False, soft_wrap=True)
    for each in after:
        console.print(
            f"  run {each.run} still waits: what it belongs to was deleted or is still being written; "
            f"restore that, or delete {escape(each.folder)}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
