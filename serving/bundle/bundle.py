"""A bundle opened for answering: ONNX graphs, memory-mapped tables and id maps, checked before the first request.

B = queries, L = history, E = excluded items, K = candidates, T = tasks, F = context features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys.artefact import MANIFEST, read_manifest
from recsys.columns import (
    BEHAVIOUR,
    FIRST_ID,
    ITEM,
    ITEMS_FILE,
    LENGTH,
    START,
    TIME_MS,
    TIMELINE_FILE,
    UNKNOWN_ID,
    USERS_FILE,
    feature,
)
from recsys.columns import ITEM_ID as ITEM_TEXT
from recsys.columns import USER_ID as USER_TEXT
from recsys.errors import InputError
from recsys.id_index import IdIndex
from recsys.item_index import ItemIndex
from recsys.texts import Texts
from recsys.value_formula import ValueFormula
from serving.bundle.facts import ModelFacts, Reference
from serving.bundle.features import Features
from serving.bundle.finder import Exact, Finder, Indexed, open_session
from serving.bundle.parity import check_parity
from serving.bundle.stand_ins import StandIns

Array = NDArray[Any]
RETRIEVAL_FILE, GENERATION_FILE, RANKING_FILE, PARITY_FILE = "retrieval.onnx", "generation.onnx", "ranking.onnx", "parity.npz"
QUERY_FILE, INDEX_FILE, VECTORS_FILE = "query.onnx", "items.faiss", "vectors.npy"
USER_INDEX_FILE, ITEM_INDEX_FILE, REFERENCE_FILE = "user_index.arrow", "item_index.arrow", "reference.json"
TITLE = "title"
UNWRITTEN = "unwritten"  # the version of a bundle that is being made


@dataclass(frozen=True)
class Bundle:
    name: str
    version: str  # the manifest's fingerprint
    lineage: dict[str, Any]
    facts: ModelFacts
    retrieval: Finder = field(repr=False)
    generation: Finder | None = field(repr=False)
    ranking: ort.InferenceSession | None = field(repr=False)
    users: pa.Table = field(repr=False)
    items: pa.Table = field(repr=False)
    timeline: pa.Table = field(repr=False)
    vector_ID: Array = field(repr=False)  # of the items as they are scored, memory-mapped; float32 or float16
    stand_ins: StandIns = field(repr=False)
    reference: Reference | None = field(repr=False)  # what score drift is measured against
    category_I: Array = field(repr=False)  # code of each item's first category; UNKNOWN_ID where there is none
    user_index: IdIndex = field(repr=False)
    item_index: IdIndex = field(repr=False)
    features: Features | None = field(repr=False)  # None where the ranking graph reads none
    parity_max_error: dict[str, float] | None  # by graph

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> "Bundle":
        """Open a bundle whose files match its manifest and whose graphs answer here as they did in torch."""
        return cls.open(folder, read_manifest(folder, "bundle", verify=True), threads)

    @classmethod
    def open(cls, folder: Path, manifest: Mapping[str, Any], threads: int = 1) -> "Bundle":
        """The same with a manifest that is trusted: at export, before it is written."""
        try:
            facts = ModelFacts.model_validate(manifest.get("model"))
            reference = folder / REFERENCE_FILE
            drift = Reference.model_validate_json(reference.read_bytes()) if reference.is_file() else None
        except ValidationError as error:
            is_reference = error.title == Reference.__name__
            where = REFERENCE_FILE if is_reference else f"the `model` entry of {MANIFEST}"
            raise InputError(
                f"{folder}: {where} is unusable ({error.errors()[0]['msg']}): make the bundle again with `recsys export`"
            ) from error
        users, items = _mapped(folder / USERS_FILE), _mapped(folder / ITEMS_FILE)
        vector_ID = np.load(folder / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
        bundle = cls(
            name=str(manifest.get("name", folder.name)),
            version=str(manifest.get("fingerprint", UNWRITTEN)),
            lineage=manifest.get("lineage", {}),
            facts=facts,
            retrieval=_retrieval(folder, facts, vector_ID, threads),
            generation=Exact(open_session(folder / GENERATION_FILE, threads)) if facts.candidates == "generation" else None,
            ranking=open_session(folder / RANKING_FILE, threads) if facts.tasks else None,
            users=users,
            items=items,
            timeline=_mapped(folder / TIMELINE_FILE),
            vector_ID=vector_ID,
            stand_ins=StandIns.open(folder),
            reference=drift,
            category_I=_first_codes(items, next(iter(facts.category), None)),
            user_index=IdIndex.open(users[USER_TEXT], folder / USER_INDEX_FILE),
            item_index=IdIndex.open(items[ITEM_TEXT], folder / ITEM_INDEX_FILE),
            features=_features(folder, facts, users, items),
            parity_max_error=manifest.get("parity_max_error"),
        )
        check_parity(folder / PARITY_FILE, bundle.finders, bundle.ranking)
        return bundle

    @property
    def providers(self) -> list[str]:
        """Where the graphs run. Only a session knows: the installed runtime may list a GPU that it cannot use."""
        return list(self.retrieval.session.get_providers())

    def timeline_of(self, user: int) -> Array:
        """All items of a user, oldest first, read through the memory map."""
        return self._events(user, ITEM)

    def times_of(self, user: int) -> Array:
        """When each of them happened, in milliseconds."""
        return self._events(user, TIME_MS)

    def behaviours_of(self, user: int) -> Array:
        """A bit mask of each of them: which tasks had a yes."""
        return self._events(user, BEHAVIOUR)

    @cached_property
    def reads_behaviours(self) -> bool:
        """Whether the ranking graph asks what each event of the history was."""
        return self.ranking is not None and "behaviour" in {entry.name for entry in self.ranking.get_inputs()}

    @cached_property
    def reads_time(self) -> bool:
        """Whether a graph that finds candidates asks when things happened."""
        return any("time" in finder.inputs for finder in self.finders.values())

    @property
    def finders(self) -> dict[str, Finder]:
        """What finds candidates, by the names in the parity sample."""
        return {"retrieval": self.retrieval} | ({"generation": self.generation} if self.generation else {})

    def _events(self, user: int, column: str) -> Array:
        start_U, length_U = self._spans
        start = start_U[user]
        values: Array = self._columns[column][start : start + length_U[user]]
        return values

    @cached_property
    def _spans(self) -> tuple[Array, Array]:
        return self.users[START].to_numpy(), self.users[LENGTH].to_numpy()

    @cached_property
    def _columns(self) -> dict[str, Array]:
        """Of the timeline; views of the mapped file where it has one record batch, as `recsys export` writes it."""
        return {name: self.timeline[name].to_numpy() for name in self.timeline.column_names}

    @cached_property
    def _item_texts(self) -> Texts:
        return Texts(self.items[ITEM_TEXT])

    @cached_property
    def _titles(self) -> Texts | None:
        return Texts(self.items[TITLE]) if TITLE in self.items.column_names else None

    @cached_property
    def no_bias_1I(self) -> Array:
        return np.zeros((1, self.facts.num_items), np.float32)

    @cached_property
    def value(self) -> ValueFormula:
        return ValueFormula(self.facts.value, self.facts.tasks)

    @cached_property
    def category_codes(self) -> dict[str, int]:
        """Category -> its code in `category_I`."""
        return {value: FIRST_ID + place for values in self.facts.category.values() for place, value in enumerate(values)}

    @cached_property
    def norm_I(self) -> Array:
        """The length of each item's vector, read in blocks; never 0."""
        blocks = (self.vector_ID[start : start + 65_536] for start in range(0, len(self.vector_ID), 65_536))
        norm_I = np.concatenate([np.linalg.norm(np.asarray(block, np.float32), axis=1) for block in blocks])
        return np.maximum(norm_I, 1e-12)

    def unit_vectors(self, item_K: Array) -> Array:
        """vector_KD of items, of length 1."""
        return np.asarray(self._vectors.take(item_K, axis=0), np.float32) / self.norm_I.take(item_K)[:, None]

    @cached_property
    def _vectors(self) -> Array:
        """`vector_ID` without the class of a memory map, whose every slice costs microseconds."""
        return np.asarray(self.vector_ID)

    def covisits(self, item: int) -> tuple[Array, Array]:
        """The items that others had near this one, best first, and how near, from 0 to 1."""
        return self.stand_ins.covisits(item)

    def segment_of(self, user: int) -> int | None:
        """The code of the user's first segment; None where the bundle has no segments or does not know the user."""
        if self.facts.segment is None or user < FIRST_ID:
            return None
        code = self.users[feature(self.facts.segment)][user].as_py()
        return (code[0] if code else UNKNOWN_ID) if isinstance(code, list) else code

    def popular_with(self, user: int) -> Array:
        """Items by popularity in the user's first segment; none where that is not known."""
        code = self.segment_of(user)
        return self.stand_ins.popular_with(UNKNOWN_ID if code is None else code)

    @property
    def popular_P(self) -> Array:
        return self.stand_ins.popular_P

    def item_id(self, item: int) -> str:
        text = self._item_texts[item]
        assert text is not None, f"item {item} is a reserved row"
        return text

    def title(self, item: int) -> str | None:
        return None if self._titles is None else self._titles[item]


def _retrieval(folder: Path, facts: ModelFacts, vector_ID: Array, threads: int) -> Finder:
    if facts.index is None:
        return Exact(open_session(folder / RETRIEVAL_FILE, threads))
    index = ItemIndex.open(folder / INDEX_FILE, vector_ID, nprobe=facts.index.nprobe, threads=threads)
    return Indexed(open_session(folder / QUERY_FILE, threads), index, facts.num_candidates)


def _features(folder: Path, facts: ModelFacts, users: pa.Table, items: pa.Table) -> Features | None:
    if not facts.features:
        return None
    return Features.load(folder, facts.features, users=users, items=items, context=tuple(facts.context), tasks=facts.tasks)


def _first_codes(items: pa.Table, name: str | None) -> Array:
    """code_I; a row with an empty list has none."""
    if name is None:
        return np.full(len(items), UNKNOWN_ID, np.int32)
    column = items[feature(name)].combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return column.to_numpy()
    offset_I1 = column.offsets.to_numpy()
    code_I = np.full(len(column), UNKNOWN_ID, np.int32)
    some_I = np.diff(offset_I1) > 0
    code_I[some_I] = column.values.to_numpy()[offset_I1[:-1][some_I]]
    return code_I


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
