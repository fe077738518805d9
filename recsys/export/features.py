"""What requests need of the point-in-time features: their specs, and the state as of the end of the dataset.

One file for each distinct key. It holds 24 bytes for each key and tally that the key has, and 8 bytes, with 4 for each name of
the key and 1 for each kind of event, for each event of the last delay + window: nothing of what is older.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from recsys.data.before import feature_state_file
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.features import PointInTime, State, entities
from recsys.features.state import features_file

_SPECS: TypeAdapter[dict[str, PointInTime]] = TypeAdapter(dict[str, PointInTime])


def export_features(data: Dataset, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write the state of each key to `folder`; returns the specs as they stand in a config, in the order of `names`.

    Raises InputError where the dataset has no state.
    """
    every: Mapping[str, Any] = _SPECS.validate_python(data.manifest["config"].get("features", {}))
    chosen = {name: every[name] for name in names}
    group_of = {by: group for group, by in enumerate(entities(every))}
    for place, (by, features) in enumerate(entities(chosen).items()):
        path = feature_state_file(data.folder, group_of[by])
        if not path.is_file():
            raise InputError(
                f"{path} is missing, without which requests know nothing of the past: run `recsys prepare --anew`, train again"
            )
        State.load(path).only(features).save(folder / features_file(place))
    return {name: feature.model_dump(mode="json") for name, feature in chosen.items()}
