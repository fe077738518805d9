"""What finds items for a history: a graph that scores all of them, or a graph that makes a vector and an index.

B = requests, E = excluded items, X = 1 for all requests alike or B, K = items, L = history, I = rows of the item table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import onnxruntime as ort
from numpy.typing import NDArray

from recsys.item_index import ItemIndex

Array = NDArray[Any]


class Finder(Protocol):
    """`given`: history (B, L), length (B), exclude (B, E), bias (X, I), and time where `inputs` has it. Gives item_BK and
    score_BK, best first; -inf in empty places."""

    @property
    def inputs(self) -> frozenset[str]: ...

    @property
    def session(self) -> ort.InferenceSession: ...

    def __call__(self, given: Mapping[str, Array]) -> tuple[Array, Array]: ...


@dataclass(frozen=True, eq=False)
class Exact:
    """A graph with the search inside: of retrieval, or of generation."""

    session: ort.InferenceSession = field(repr=False)

    @cached_property
    def inputs(self) -> frozenset[str]:
        return _inputs(self.session)

    def __call__(self, given: Mapping[str, Array]) -> tuple[Array, Array]:
        item_BK, score_BK = self.session.run(["item", "score"], {name: given[name] for name in self.inputs})
        return item_BK, score_BK


@dataclass(frozen=True, eq=False)
class Indexed:
    """A graph that gives `user` (B, D), and the index that is searched with it."""

    session: ort.InferenceSession = field(repr=False)
    index: ItemIndex = field(repr=False)
    count: int

    @cached_property
    def inputs(self) -> frozenset[str]:
        return _inputs(self.session) | {"exclude", "bias"}

    def users(self, given: Mapping[str, Array]) -> Array:
        """user_BD as it is scored."""
        [user_BD] = self.session.run(["user"], {name: given[name] for name in self.inputs - {"exclude", "bias"}})
        return user_BD

    def __call__(self, given: Mapping[str, Array]) -> tuple[Array, Array]:
        return self.index.search(self.users(given), given["exclude"], given["bias"], self.count)


def _inputs(session: ort.InferenceSession) -> frozenset[str]:
    return frozenset(entry.name for entry in session.get_inputs())


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    ort.preload_dlls()  # the CUDA libraries that pip installed; nothing to do in a CPU build
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return ort.InferenceSession(path, options, [name for name in wanted if name in ort.get_available_providers()])
