"""A bundle opened for answering: ONNX graphs, memory-mapped tables and id maps, checked before the first request.

B = queries, L = history, E = excluded items, K = candidates, T = tasks, F = context features.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import onnxruntime as ort
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys.artefact import MANIFEST, read_manifest
from recsys.columns import BEHAVIOUR, ITEM, ITEMS_FILE, LENGTH, START, TIME_MS, TIMELINE_FILE, UNKNOWN_ID, USERS_FILE
from recsys.columns import ITEM_ID as ITEM_TEXT
from recsys.columns import USER_ID as USER_TEXT
from recsys.errors import InputError

Array = NDArray[Any]
RETRIEVAL_FILE, GENERATION_FILE, RANKING_FILE, PARITY_FILE = "retrieval.onnx", "generation.onnx", "ranking.onnx", "parity.npz"
TITLE = "title"
PARITY_TOLERANCE = 1e-4


class ModelFacts(BaseModel):
    """What the manifest says about the graphs."""

    model_config = ConfigDict(frozen=True)
    max_history: int = Field(ge=1)
    num_candidates: int = Field(ge=1)
    num_items: int = Field(ge=3)  # rows, padding and unknown included
    candidates: Literal["retrieval", "generation"] = "retrieval"  # the graph that is asked first
    tasks: tuple[str, ...]
    value: dict[str, float]
    context: dict[str, tuple[str, ...]]  # feature -> its values, the first one having code FIRST_ID

    @model_validator(mode="after")
    def _value_names_tasks(self) -> Self:
        if unknown := set(self.value) - set(self.tasks):
            raise ValueError(f"value weighs {sorted(unknown)}, the tasks are {list(self.tasks)}")
        return self


class IdIndex:
    """External id -> row, through sorted 64-bit hashes: 12 bytes an id where a dict takes 150.

    Measured with a million ids: 3 microseconds a look-up (dict: 1), 0.2 s to build (dict: 0.9).
    """

    def __init__(self, texts: pa.ChunkedArray, slice_rows: int = 65_536) -> None:
        starts = range(0, len(texts), slice_rows)
        slices = (texts.slice(start, slice_rows).to_pylist() for start in starts)
        hashes = np.fromiter((hash(text) for part in slices for text in part), np.int64, len(texts))
        self._texts = texts
        self._rows = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._rows]

    def find(self, text: str) -> int:
        """The row of an id, UNKNOWN_ID where the table lacks it."""
        wanted = np.int64(hash(text))
        place = int(self._hashes.searchsorted(wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            if self._texts[int(self._rows[place])].as_py() == text:
                return int(self._rows[place])
            place += 1
        return UNKNOWN_ID


@dataclass(frozen=True)
class Bundle:
    name: str
    version: str  # the manifest's fingerprint
    lineage: dict[str, Any]
    facts: ModelFacts
    retrieval: ort.InferenceSession = field(repr=False)
    generation: ort.InferenceSession | None = field(repr=False)
    ranking: ort.InferenceSession | None = field(repr=False)
    users: pa.Table = field(repr=False)
    items: pa.Table = field(repr=False)
    timeline: pa.Table = field(repr=False)
    user_index: IdIndex = field(repr=False)
    item_index: IdIndex = field(repr=False)

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> "Bundle":
        """Open a bundle whose files match its manifest and whose graphs answer here as they did in torch."""
        manifest = read_manifest(folder, "bundle", verify=True)
        try:
            facts = ModelFacts.model_validate(manifest.get("model"))
        except ValidationError as error:
            raise InputError(
                f"{folder / MANIFEST} has an unusable `model` entry ({error.errors()[0]['msg']}): "
                "make the bundle again with `recsys export`"
            ) from error
        users, items = _mapped(folder / USERS_FILE), _mapped(folder / ITEMS_FILE)
        bundle = cls(
            name=str(manifest.get("name", folder.name)),
            version=manifest["fingerprint"],
            lineage=manifest.get("lineage", {}),
            facts=facts,
            retrieval=_session(folder / RETRIEVAL_FILE, threads),
            generation=_session(folder / GENERATION_FILE, threads) if facts.candidates == "generation" else None,
            ranking=_session(folder / RANKING_FILE, threads) if facts.tasks else None,
            users=users,
            items=items,
            timeline=_mapped(folder / TIMELINE_FILE),
            user_index=IdIndex(users[USER_TEXT]),
            item_index=IdIndex(items[ITEM_TEXT]),
        )
        bundle._check_parity(folder / PARITY_FILE)
        return bundle

    @property
    def providers(self) -> list[str]:
        """Where the graphs run. Only a session knows: the installed runtime may list a GPU that it cannot use."""
        return list(self.retrieval.get_providers())

    def timeline_of(self, user: int) -> Array:
        """All items of a user, oldest first, read through the memory map."""
        return self._events(user, ITEM)

    def times_of(self, user: int) -> Array:
        """When each of them happened, in milliseconds."""
        return self._events(user, TIME_MS)

    def behaviours_of(self, user: int) -> Array:
        """A bit mask of each of them: which tasks had a yes."""
        return self._events(user, BEHAVIOUR)

    @property
    def reads_behaviours(self) -> bool:
        """Whether the ranking graph asks what each event of the history was."""
        return self.ranking is not None and "behaviour" in {entry.name for entry in self.ranking.get_inputs()}

    @property
    def reads_time(self) -> bool:
        """Whether a graph that finds candidates asks when things happened."""
        return any(entry.name == "time" for graph in self._finders.values() for entry in graph.get_inputs())

    @property
    def _finders(self) -> dict[str, ort.InferenceSession]:
        """The graphs that find candidates, by the names that they have in the parity sample."""
        return {"retrieval": self.retrieval} | ({"generation": self.generation} if self.generation else {})

    def _events(self, user: int, column: str) -> Array:
        start, length = self.users[START][user].as_py(), self.users[LENGTH][user].as_py()
        values: Array = self.timeline[column].slice(start, length).to_numpy()
        return values

    def item_id(self, item: int) -> str:
        """One cell at a time: `Table.take` costs milliseconds where a table has many record batches, this a microsecond."""
        text: str = self.items[ITEM_TEXT][item].as_py()
        return text

    def title(self, item: int) -> str | None:
        text: str | None = self.items[TITLE][item].as_py() if TITLE in self.items.column_names else None
        return text

    def _check_parity(self, path: Path) -> None:
        """Refuse a runtime that does not give the outputs recorded at export."""
        sample = np.load(path, allow_pickle=False)
        same = True
        for name, graph in self._finders.items():
            item_BK, score_BK = graph.run(["item", "score"], _inputs(graph, name, sample))
            expected_item_BK, expected_score_BK = sample[f"{name}_item"], sample[f"{name}_score"]
            same &= _close(score_BK, expected_score_BK)
            same &= bool((item_BK == expected_item_BK)[_settled(expected_score_BK)].all())
        if self.ranking is not None:
            [probability_BKT] = self.ranking.run(["probability"], _inputs(self.ranking, "ranking", sample))
            same &= _close(probability_BKT, sample["ranking_probability"])
        if not same:
            raise InputError(
                f"{path.parent} does not give the outputs recorded in {path.name} with onnxruntime {ort.__version__} on "
                f"{self.providers[0]}: install the locked onnxruntime, or make the bundle again with `recsys export`"
            )


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    ort.preload_dlls()  # the CUDA libraries that pip installed; nothing to do in a CPU build
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return ort.InferenceSession(path, options, [name for name in wanted if name in ort.get_available_providers()])


def _inputs(session: ort.InferenceSession, graph: str, sample: Any) -> dict[str, Array]:
    return {entry.name: sample[f"{graph}_{entry.name}"] for entry in session.get_inputs()}


def _close(found: Array, expected: Array) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected, rtol=PARITY_TOLERANCE, atol=PARITY_TOLERANCE)


def _settled(score_BK: Array) -> Array:
    """Places whose score differs from both neighbours' by more than the tolerance, so that no other item may stand there."""
    with np.errstate(invalid="ignore"):  # -inf minus -inf: not a gap
        gap_B = -np.diff(score_BK, axis=1) > 4 * PARITY_TOLERANCE * (1 + np.abs(score_BK[:, :1]))
    edge_B1 = np.ones((len(score_BK), 1), dtype=bool)
    return np.hstack([edge_B1, gap_B]) & np.hstack([gap_B, ~edge_B1]) & np.isfinite(score_BK)
