"""The registered copy of a day's bundle: what a server will fetch has to be what was exported."""

import logging
import shutil

from pipelines.workspace import Workspace
from recsys import track
from recsys.artefact import read_manifest
from recsys.errors import InputError

FETCHED = ".fetched.tmp"
log = logging.getLogger("recsys.daily")


def is_run_of(workspace: Workspace, run_id: str, uri: str | None) -> bool:
    """Whether the run is the workspace's own, which may have been begun while the store was away."""
    from recsys.track.spool import known_id

    return workspace.run_id is not None and known_id(workspace.run_id, track.resolve_uri(uri)) == run_id


def send_again_if_damaged(workspace: Workspace, version: track.Version, *, uri: str | None) -> bool:
    """Fetch the store's copy and hash it; send the workspace's bundle once more where it differs. Returns whether it did.

    No server would take a damaged copy, so that the champion would never go live. Raises InputError where the store still does
    not hold what was sent.
    """
    problem = _problem(workspace, version, uri)
    if not problem:
        return False
    log.warning("version %s is sent to the store again: %s", version.number, problem)
    with track.resume_run(version.run_id, uri=uri) as run:
        run.artefact(workspace.bundle, version.folder)
    if problem := _problem(workspace, version, uri):
        raise InputError(f"The store does not hold version {version.number} as it was sent ({problem}): look at its disk")
    return True


def _problem(workspace: Workspace, version: track.Version, uri: str | None) -> str:
    """How the store's copy differs from what was exported; empty where it does not."""
    scratch = workspace.root / FETCHED
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    try:
        read_manifest(track.fetch(version, scratch, uri=uri), "bundle", verify=True)
    except track.StoreAwayError:
        raise
    except InputError as error:
        return str(error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ""
