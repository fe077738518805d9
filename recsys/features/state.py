"""What later batches of events need of the earlier ones. Shapes: K = keys, N = any keys."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from recsys.features.frame import Frame
from recsys.features.tally import Feature

_VERSION = 1


def features_file(place: int) -> str:
    """Of a bundle: the state of the features of one key; keys are in the order of `entities`."""
    return f"features-{place}.npz"


@dataclass(frozen=True, eq=False)
class Summary:
    """A tally's number of every key that has one, with the time of the key's last event in it; keys ascend."""

    key_K: np.ndarray
    last_K: np.ndarray
    number_K: np.ndarray

    @classmethod
    def empty(cls) -> Self:
        return cls(*(np.empty(0, np.int64) for _ in range(3)))

    def where(self, kept: np.ndarray) -> "Summary":
        """The rows of a mask, or of indices."""
        return Summary(self.key_K[kept], self.last_K[kept], self.number_K[kept])

    def of(self, key_N: np.ndarray) -> "Summary":
        """Only these keys, ascending and distinct, as far as there are any."""
        place_N, known_N = self._find(key_N)
        return self.where(place_N[known_N])

    def under(self, key_N: np.ndarray, name_N: np.ndarray) -> "Summary":
        """Only these keys, as far as there are any, each by another name; names ascend, keys may repeat."""
        place_N, known_N = self._find(key_N)
        place_K = place_N[known_N]
        return Summary(name_N[known_N], self.last_K[place_K], self.number_K[place_K])

    def updated(self, touched_N: np.ndarray, new: "Summary") -> "Summary":
        """With what `new` says of the touched keys, also where it says nothing."""
        place_N, known_N = self._find(touched_N)
        kept = np.ones(len(self.key_K), bool)
        kept[place_N[known_N]] = False
        rest = self.where(kept)
        place_K = np.searchsorted(rest.key_K, new.key_K)
        return Summary(
            np.insert(rest.key_K, place_K, new.key_K),
            np.insert(rest.last_K, place_K, new.last_K),
            np.insert(rest.number_K, place_K, new.number_K),
        )

    def _find(self, key_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place_N = np.searchsorted(self.key_K, key_N)
        known_N = place_N < len(self.key_K)
        known_N[known_N] = self.key_K[place_N[known_N]] == key_N[known_N]
        return place_N, known_N


@dataclass(frozen=True, eq=False)
class State:
    """Everything up to `time_ms`: summaries of what any later query sees, and the events that enter or leave a tally later."""

    time_ms: int
    tail: Frame  # oldest first
    summaries: Mapping[str, Summary]  # by `repr` of the tally

    def save(self, path: Path) -> None:
        """Write one `.npz`; equal states give equal bytes."""
        about = {"version": _VERSION, "time_ms": self.time_ms, "tallies": list(self.summaries)}
        arrays = {"about": np.array(json.dumps(about)), "time": self.tail.time_ms}
        arrays |= {f"key.{name}": key for name, key in self.tail.keys.items()}
        arrays |= {f"flag.{name}": flag for name, flag in self.tail.flags.items()}
        for i, summary in enumerate(self.summaries.values()):
            arrays |= {f"{i}.key": summary.key_K, f"{i}.last": summary.last_K, f"{i}.number": summary.number_K}
        with path.open("wb") as file:  # given a name, numpy may add a suffix
            np.savez(file, allow_pickle=False, **arrays)

    def only(self, features: Mapping[str, Feature]) -> "State":
        """What some of the features need."""
        tallies = [tally for feature in features.values() for tally in feature.tallies]
        from_ms = self.time_ms - max((tally.delay_ms + (tally.window_ms or 0) for tally in tallies), default=0)
        tail = self.tail.take(slice(int(np.searchsorted(self.tail.time_ms, from_ms)), None))
        tail = tail.only({name for tally in tallies for name in tally.by}, {tally.event for tally in tallies})
        return State(self.time_ms, tail, {name: self.summaries[name] for name in map(repr, tallies)})

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        about = json.loads(str(arrays["about"]))
        assert about["version"] == _VERSION, f"{path} has version {about['version']}"
        keys, flags = (
            {name[len(part) :]: arrays[name] for name in arrays if name.startswith(part)} for part in ("key.", "flag.")
        )
        summaries = {
            name: Summary(arrays[f"{i}.key"], arrays[f"{i}.last"], arrays[f"{i}.number"])
            for i, name in enumerate(about["tallies"])
        }
        return cls(about["time_ms"], Frame(keys, arrays["time"], flags), summaries)
