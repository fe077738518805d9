"""Events and queries as arrays. Shapes: N = rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.errors import InputError

EVERY = "all"  # the event that every row is
BEGINNING_MS = -(2**62)  # before every event
_KEY_BITS = 63


@dataclass(frozen=True, eq=False)
class Frame:
    """Rows with a time, codes by which they are found, and flags that say which events they are."""

    keys: Mapping[str, np.ndarray]  # user, item, category, ...: int32 or int64
    time_ms: np.ndarray
    flags: Mapping[str, np.ndarray] = field(default_factory=dict)  # history, click, ...: bool

    def __len__(self) -> int:
        return len(self.time_ms)

    @property
    def newest_ms(self) -> int:
        return int(self.time_ms.max()) if len(self) else BEGINNING_MS

    def key(self, by: Sequence[str]) -> np.ndarray:
        """The codes of several columns as one int64: the first has 31 bits, the others share the rest."""
        for name in by:
            if name not in self.keys:
                raise InputError(
                    f"a point-in-time feature is by {name!r}, which is none of {', '.join(self.keys)}: correct `by`"
                )
        key_N = np.asarray(self.keys[by[0]], np.int64)
        if len(by) == 1:
            return key_N
        bits = (_KEY_BITS - 31) // (len(by) - 1)
        for name, limit in zip(by, [31] + [bits] * (len(by) - 1), strict=True):
            code_N = self.keys[name]
            if len(code_N) and not 0 <= int(code_N.min()) <= int(code_N.max()) < 2**limit:
                raise InputError(
                    f"a point-in-time feature by {', '.join(by)} has room for codes of {name!r} below 2^{limit}, "
                    f"not for {code_N.max()}: put the name with the most values first, or use fewer names"
                )
        for name in by[1:]:
            key_N = key_N << bits | self.keys[name]
        return key_N

    def flag(self, event: str) -> np.ndarray:
        if event == EVERY:
            return np.ones(len(self), bool)
        if event not in self.flags:
            known = ", ".join([EVERY, *self.flags])
            raise InputError(f"a point-in-time feature counts {event!r}, which is none of {known}: correct `event` or `of`")
        return self.flags[event]

    def only(self, keys: Collection[str], flags: Collection[str]) -> "Frame":
        """Without other columns."""
        return Frame(
            {name: key for name, key in self.keys.items() if name in keys},
            self.time_ms,
            {name: flag for name, flag in self.flags.items() if name in flags},
        )

    def take(self, rows: slice | np.ndarray) -> "Frame":
        return Frame(
            {name: key[rows] for name, key in self.keys.items()},
            self.time_ms[rows],
            {name: flag[rows] for name, flag in self.flags.items()},
        )

    def then(self, later: "Frame") -> "Frame":
        """These rows, then `later`'s, with the columns that these rows have."""
        return Frame(
            {name: np.concatenate([key, later.keys[name]]) for name, key in self.keys.items()},
            np.concatenate([self.time_ms, later.time_ms]),
            {name: np.concatenate([flag, later.flags[name]]) for name, flag in self.flags.items()},
        )
