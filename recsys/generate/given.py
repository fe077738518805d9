"""Codes that come with the data. Shapes: I = rows of the item table, N = items, T = levels, E = values of all items."""

import json
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys.columns import FIRST_ID
from recsys.errors import InputError
from recsys.generate.items import Items, State
from recsys.spec import Spec

UNKNOWN = ""  # the value of an item without codes; no value of a dataset is empty


class Given(Spec):
    """Take the ids from item features: one feature whose list is the codes in order, or one feature for each level.

    A dataset drops repeats within a list, so a list serves where the values of two levels differ, as `<a_7>` and `<b_7>` do.
    """

    kind: Literal["given"] = "given"
    reads_vectors: ClassVar[bool] = False
    features: tuple[str, ...] = Field(min_length=1, description="item features, such as [sid], or [code_1, code_2, code_3]")

    def fit(self, items: Items, row_N: np.ndarray, vector_ND: np.ndarray, seed: int) -> tuple[np.ndarray, State]:
        """code_NT of these items, and the values behind the codes."""
        levels = self._levels(items, row_N)
        known = [sorted(set(values)) for values in levels]
        state = {f"values_{level}": _packed(values) for level, values in enumerate(known)}
        return self._encode(items, row_N, levels, known), state

    def encode(self, items: Items, row_N: np.ndarray, vector_ND: np.ndarray, state: State) -> np.ndarray:
        """code_NT of items that no fit has seen. Raises InputError for a value that no item had then."""
        return self._encode(items, row_N, self._levels(items, row_N), self._values(state))

    def reconstruct(self, code_NT: np.ndarray, state: State) -> Iterator[np.ndarray]:
        """Nothing: whoever made the codes knows what they say."""
        return iter(())

    def sizes(self, state: State) -> tuple[int, ...]:
        return tuple(len(values) for values in self._values(state))

    def _values(self, state: State) -> list[list[str]]:
        return [json.loads(state[f"values_{level}"].tobytes()) for level in range(len(state))]

    def _levels(self, items: Items, row_N: np.ndarray) -> list[list[str]]:
        """The value of every item at each level."""
        known = {feature["name"] for feature in items.data.features if feature["owner"] == "item"}
        for name in self.features:
            if name not in known:
                raise InputError(f"quantizer.features names {name!r}, which is no item feature: choose from {sorted(known)}")
        columns = [self._column(items, row_N, name) for name in self.features]
        return [list(values) for values in zip(*map(_joined, zip(*columns, strict=True)), strict=True)]

    def _column(self, items: Items, row_N: np.ndarray, name: str) -> list[list[str]]:
        """The values of each item, all lists of one length."""
        chosen = items.data.codes(name, "item").take(row_N)
        values = np.array([UNKNOWN] * FIRST_ID + items.data.vocabulary("item", name), object)
        listed = [list(part) for part in np.split(values[chosen.item_E], chosen.offset_U1[1:-1])]
        lengths = np.array([len(each) for each in listed])
        missing = np.array([each == [UNKNOWN] for each in listed])
        levels = int(np.bincount(lengths[~missing]).argmax()) if not missing.all() else 1
        odd = np.flatnonzero(~missing & (lengths != levels))
        if len(odd):
            raise InputError(
                f"item feature {name!r} has {levels} codes of most items and {lengths[odd[0]]} of item "
                f"{items.names(row_N[odd], 1)}: name one feature for each level in quantizer.features (a list keeps no repeats)"
            )
        return [[UNKNOWN] * levels if gone else each for each, gone in zip(listed, missing, strict=True)]

    def _encode(self, items: Items, row_N: np.ndarray, levels: list[list[str]], known: list[list[str]]) -> np.ndarray:
        code_NT = np.empty((len(row_N), len(levels)), np.int32)
        for level, (values, names) in enumerate(zip(levels, known, strict=True)):
            code = {name: place for place, name in enumerate(names)}
            new = next((place for place, value in enumerate(values) if value not in code), None)
            if new is not None:
                raise InputError(
                    f"item {items.names(row_N[new : new + 1], 1)} has code {values[new]!r} at level {level + 1}, which no item "
                    "had when the ids were made: make them again with `recsys ids --anew`"
                )
            code_NT[:, level] = [code[value] for value in values]
        return code_NT


def _joined(parts: tuple[list[str], ...]) -> list[str]:
    return [value for part in parts for value in part]


def _packed(values: list[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(values).encode(), np.uint8)
