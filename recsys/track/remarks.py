"""What is said of a run after it ended, without opening it again: its status, end and duration stay."""

from collections.abc import Mapping

from recsys.track.store import encode, open_store, resolve_uri, unless_absent


def annotate(run_id: str, tags: Mapping[str, str], *, uri: str | None = None) -> None:
    client = open_store(resolve_uri(uri))
    for name, value in tags.items():
        client.set_tag(run_id, encode(name), value)


def is_deleted(run_id: str, *, uri: str | None = None) -> bool:
    """Whether the store keeps the run only until its garbage is collected."""
    client = open_store(resolve_uri(uri))
    found = unless_absent(lambda: client.get_run(run_id))
    return found is None or found.info.lifecycle_stage == "deleted"
