"""What runs have left in the store: stages below a run, artefacts, curves.

Files on this machine are opened where they are, and many runs are asked for at once: asking for each takes seconds for 200.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

from recsys.track.bulk import read_histories
from recsys.track.runs import RunSummary, all_runs, searched, summary
from recsys.track.spool import known_id
from recsys.track.store import encode, open_store, resolve_uri, unless_absent
from recsys.track.tags import PARENT_TAG

AT_ONCE = 8  # downloads


def children(run_id: str, *, uri: str | None = None) -> list[RunSummary]:
    """The runs of a pipeline run's stages, oldest first; none where it has none."""
    uri = resolve_uri(uri)
    client = open_store(uri)
    found = unless_absent(lambda: client.get_run(known_id(run_id, uri)))
    if found is None:
        return []
    return searched(client, found.info.experiment_id, f"tags.`{PARENT_TAG}` = '{found.info.run_id}'")[::-1]


def stages(runs: Sequence[RunSummary], experiment: str, *, uri: str | None = None) -> dict[str, list[RunSummary]]:
    """id of a run of the experiment -> the runs of its stages, oldest first; without the runs that have none."""
    client = open_store(resolve_uri(uri))
    found = client.get_experiment_by_name(experiment)
    below: dict[str, list[RunSummary]] = {}
    if found is not None:
        wanted = {run.id for run in runs}
        for run in reversed(all_runs(client, found.experiment_id, "stages")):
            if run.parent in wanted:
                below.setdefault(run.parent, []).append(run)
    return below


def artefact(run_id: str, path: str, *, uri: str | None = None) -> Path | None:
    """A file or folder of a run's artefacts: where it lies, or a copy where the store is a server; None where it is absent."""
    uri = resolve_uri(uri)
    client = open_store(uri)
    found = unless_absent(lambda: client.get_run(known_id(run_id, uri)))
    return None if found is None else artefacts([summary(found)], path, uri=uri).get(found.info.run_id)


def artefacts(runs: Sequence[RunSummary], path: str, *, uri: str | None = None) -> dict[str, Path]:
    """run id -> a file or folder of its artefacts: where it lies, or a copy where the store is a server.

    Runs that lack it are left out.
    """
    found: dict[str, Path] = {}
    far = []
    for run in runs:
        folder = _local(run.artefacts)
        if folder is None:
            far.append(run.id)
        elif (folder / path).exists():
            found[run.id] = folder / path
    if not far:
        return found
    client = open_store(resolve_uri(uri))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        copies = threads.map(lambda run_id: unless_absent(lambda: client.download_artifacts(run_id, path)), far)
        return found | {run_id: Path(copy) for run_id, copy in zip(far, copies, strict=True) if copy is not None}


def deleted_runs(experiment: str, *, uri: str | None = None) -> list[RunSummary]:
    """The experiment's runs in the bin, newest first."""
    client = open_store(resolve_uri(uri))
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else all_runs(client, found.experiment_id, "both", deleted=True)


def metric_histories(run_ids: Sequence[str], name: str, *, uri: str | None = None) -> dict[str, list[tuple[int, float]]]:
    """run id -> (step, value) of one metric, by step; without the runs that lack it."""
    client = open_store(resolve_uri(uri))
    read = read_histories(client, run_ids, encode(name))
    if read is not None:
        return read
    found = {run_id: client.get_metric_history(run_id, encode(name)) for run_id in run_ids}
    return {run_id: sorted((each.step, each.value) for each in values) for run_id, values in found.items() if values}


def _local(address: str) -> Path | None:
    """The folder of an address on this machine, None for others."""
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if address and parts.scheme in ("", "file") and not parts.netloc else None
