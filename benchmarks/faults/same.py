"""What a workspace of days and its store came to, but for what depends on when it ran; is it that of an undisturbed run?

A process that has a store open would go on with the file that it knows where another one is put in its place. So `look` is
asked in a process of its own.
"""

import json
from pathlib import Path
from typing import Any

from pipelines.promotion.facts import CHAMPION, PREVIOUS
from recsys import track
from recsys.artefact import MANIFEST, file_hash

TIMED = ("history.json",)  # how long each epoch took: what it says of losses and metrics is compared below
TIMINGS = ("seconds", "time_share", "time_ms", "speed", "per_s", "memory")
MEASURED = ("test/", "floor/", "slice/")  # metrics that do not depend on the machine


def look(root: str, model: str, uri: str) -> None:
    """Print what `outcome`, `leftovers` and `passed` say, as one line of JSON."""
    print(json.dumps([outcome(Path(root), model, uri), leftovers(Path(root)), passed(model, uri)]))


def outcome(root: Path, model: str, uri: str) -> dict[str, Any]:
    """Name -> value of all that has to be equal. Files are hashed anew, so that a damaged one differs from itself.

    `file/DAY/ARTEFACT/NAME`: every file of every artefact; `day/DAY/FIELD`: what day.json says; `alias/NAME`: the bundle that
    the alias names, and `metric/NAME`: what was measured of it.
    """
    found: dict[str, Any] = {}
    for manifest in sorted((root / "days").glob("*/**/" + MANIFEST)):
        if any(part.startswith(".") for part in manifest.relative_to(root).parts):
            continue
        folder = manifest.parent
        for name in json.loads(manifest.read_text())["files"]:
            place = folder / name
            found[f"file/{place.relative_to(root / 'days')}"] = _content(place) if place.is_file() else "lost"
    for path in sorted((root / "days").glob("*/day.json")):
        found |= {f"day/{path.parent.name}/{name}": value for name, value in _day(path).items()}
    return found | _registry(model, uri)


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """A sentence for each thing that is not as in the undisturbed run."""
    names = sorted(expected.keys() | found.keys())
    said = []
    for name in names:
        if name not in found:
            said.append(f"{name} is missing")
        elif name not in expected:
            said.append(f"{name} is new: {found[name]}")
        elif expected[name] != found[name]:
            said.append(f"{name} is {found[name]} and not {expected[name]}")
    return said


def leftovers(root: Path) -> list[str]:
    """Half-written folders and spills that no later run has cleared away."""
    return sorted(str(path.relative_to(root)) for path in root.rglob(".*") if path.name.endswith((".tmp", ".old")))


def passed(model: str, uri: str) -> dict[str, int]:
    """The fingerprints of the bundles that may be served, those of versions that passed every gate, and their numbers."""
    client = track.store.open_store(uri)
    found = client.search_model_versions(f"name = '{model}'")
    good = [each for each in found if each.tags.get("promotion/decision") in ("passed", "promoted")]
    return {_fingerprint(each.source): int(each.version) for each in good}


def _content(path: Path) -> str:
    if path.name not in TIMED:
        return file_hash(path)[:16]
    return json.dumps(
        [{key: value for key, value in entry.items() if not _is_timing(key)} for entry in json.loads(path.read_text())]
    )


def _is_timing(key: str) -> bool:
    return any(word in key for word in TIMINGS)


def _day(path: Path) -> dict[str, Any]:
    day = json.loads(path.read_text())
    decision = day.get("decision") or {}
    done = {name: step["state"] for name, step in day["steps"].items()}
    gates = {gate["name"]: gate["passed"] for gate in decision.get("gates", ())}
    kept = {name: day.get(name) for name in ("status", "mode", "why", "from", "raw", "error")}
    return {**kept, "steps": done, "gates": gates, "outcome": decision.get("outcome")}


def _registry(model: str, uri: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for alias in (CHAMPION, PREVIOUS):
        version = track.get_alias(model, alias, uri=uri)
        found[f"alias/{alias}"] = None if version is None else _fingerprint(version.source)
        if version is not None and alias == CHAMPION:
            metrics = track.get_run(version.run_id, uri=uri).metrics
            found |= {f"metric/{name}": value for name, value in metrics.items() if name.startswith(MEASURED)}
            found["files lost from the champion's bundle"] = list(track.missing_files(version, uri=uri))
    return found


def _fingerprint(source: str) -> str:
    return source.rpartition("bundle-")[2]
