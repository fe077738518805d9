"""Old days keep what they say and lose what they weigh."""

import shutil

from pipelines.daily.layout import REPORT_FILE, REPORT_JSON, STATE_FILE, Layout
from pipelines.daily.state import DayState
from pipelines.promotion.facts import CHAMPION, PREVIOUS
from recsys import track
from recsys.config import RunConfig

KEPT = (STATE_FILE, REPORT_FILE, REPORT_JSON, "mlflow.json", "raw.json")


def prune(config: RunConfig, layout: Layout, *, uri: str | None) -> list[str]:
    """Remove the artefacts of days before the newest `daily.keep_days`, and return those days. A day that the champion or its
    predecessor came from, and the newest one whose model was trained, keep theirs."""
    from recsys.track.spool import known_id

    versions = [track.get_alias(config.name, alias, uri=uri) for alias in (CHAMPION, PREVIOUS)]
    used = {version.run_id for version in versions if version is not None}
    days, store = layout.days(), track.resolve_uri(uri)
    trained = [day for day in days if DayState.load(layout.state(day)).is_done("train")]
    newest = {layout.folder(day) for day in [*days[-config.daily.keep_days :], *trained[-1:]]}
    pruned = []
    for workspace in layout.workspaces():
        path = workspace.root / STATE_FILE
        state = DayState.load(path)
        if workspace.root in newest or state.pruned:
            continue
        if workspace.run_id is not None and known_id(workspace.run_id, store) in used:
            continue
        state.pruned = True  # first, so that no half of it is taken for damaged
        state.save(path)
        for each in workspace.root.iterdir():
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            elif each.name not in KEPT:
                each.unlink()
        pruned.append(workspace.root.name)
    return pruned
