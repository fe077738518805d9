"""Item vectors from what items say of themselves. Shapes: I = rows of the item table, H = hashed columns, C = those in use,
D = width, V = values of a feature."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import sparse
from scipy.sparse.linalg import svds

from recsys.columns import FIRST_ID, ITEMS_FILE
from recsys.dataset import Dataset, map_file
from recsys.errors import InputError
from recsys.generate.items import Items, State, unit
from recsys.generate.text import count, words
from recsys.spec import Spec

TITLE = "title"


class Content(Spec):
    """Words and character n-grams of the title and of features' values: hashed, weighed by tf-idf, reduced by a truncated SVD.

    Latent semantic analysis, Deerwester et al. 1990, on hashed features, Weinberger et al. 2009,
    https://arxiv.org/abs/0902.2206. Differs from the papers: hashes have no sign, and the title and each feature are brought to
    length 1 before they are added, so that a long title does not drown a brand. TIGER (Rajput et al. 2023,
    https://arxiv.org/abs/2305.05065) takes the vectors of a language model instead.
    """

    kind: Literal["content"] = "content"
    reads_retriever: ClassVar[bool] = False
    features: tuple[str, ...] | None = Field(None, description="item features that are read; null: all of them")
    title: bool = Field(True, description="read the title, where the dataset has one")
    dim: int = Field(64, ge=1, le=1024, description="numbers of a vector")
    shortest: int = Field(3, ge=1, description="characters of the shortest n-gram of a word; its ends count as characters")
    longest: int = Field(5, ge=0, description="characters of the longest n-gram; 0: whole words only")
    columns: int = Field(2**15, ge=16, le=2**22, description="of the table that words and n-grams are hashed into")

    def fit(self, items: Items, seed: int) -> State:
        """The columns in use, their weights and the projection onto the first singular vectors."""
        fields = self._fields(items.data)
        counts = sum(fields[1:], start=fields[0])[FIRST_ID:]
        told = counts[np.diff(counts.indptr) > 0]
        if not told.shape[0]:
            raise InputError(f"{items.data.folder}: no item has content: name a title or features in data.items")
        df_H = np.bincount(told.indices, minlength=self.columns)
        column_C = np.flatnonzero(df_H)
        state = {"column_C": column_C, "idf_C": (np.log((1 + told.shape[0]) / (1 + df_H[column_C])) + 1).astype(np.float32)}
        weighed_IC = self._weighed(fields, state)[FIRST_ID:]
        return state | {"projection_CD": _directions(weighed_IC, self.dim, seed)}

    def __call__(self, items: Items, state: State) -> np.ndarray:
        """vector_ID of length 1; zeros for an item of which nothing is known, and for the reserved rows."""
        return unit(self._weighed(self._fields(items.data), state) @ state["projection_CD"])

    def _fields(self, data: Dataset) -> list[sparse.csr_array]:
        """count_IH of the title and of each feature."""
        known = {feature["name"]: feature for feature in data.features if feature["owner"] == "item"}
        for name in self.features or ():
            if name not in known:
                raise InputError(f"vectors.features names {name!r}, which is no item feature: choose from {sorted(known)}")
        table = map_file(data.folder / ITEMS_FILE)
        fields = []
        if self.title and TITLE in table.column_names:
            titles = table.column(TITLE).to_pylist()
            fields.append(count([list(words(title or "", self.shortest, self.longest)) for title in titles], self.columns))
        fields += [self._of_feature(data, name) for name in (known if self.features is None else self.features)]
        if not fields:
            raise InputError(f"{data.folder} has neither a title nor item features: name them in data.items")
        return fields

    def _of_feature(self, data: Dataset, name: str) -> sparse.csr_array:
        """count_IH: each value as a whole and its words. Padding and unknown have nothing; numbers are no words."""
        codes, values = data.codes(name, "item"), data.vocabulary("item", name)
        size = max(len(values) + FIRST_ID, int(codes.item_E.max(initial=0)) + 1)
        texts = values + [str(code) for code in range(len(values) + FIRST_ID, size)]
        tokens: list[list[str]] = [[], []]  # padding and unknown
        tokens += [[f"{name} = {text}", *self._words(text)] for text in texts]
        of_value = count(tokens, self.columns)
        ones = np.ones(len(codes.item_E), np.float32)
        has_IV = sparse.csr_array((ones, codes.item_E, codes.offset_U1), shape=(len(codes), size))
        return has_IV @ of_value

    def _words(self, text: str) -> list[str]:
        return list(words(text, self.shortest, self.longest)) if any(each.isalpha() for each in text) else []

    def _weighed(self, fields: list[sparse.csr_array], state: State) -> sparse.csr_array:
        """The sum over fields of (1 + log tf) idf, each at length 1."""
        parts = []
        for count_IH in fields:
            part = sparse.csr_array(count_IH[:, state["column_C"]], dtype=np.float32)
            part.data = 1 + np.log(part.data)
            part = part @ sparse.dia_array((state["idf_C"][None], [0]), shape=(len(state["idf_C"]),) * 2)
            length_I = np.sqrt((part * part).sum(axis=1))
            scale_I = 1 / np.where(length_I > 0, length_I, 1)
            parts.append(sparse.dia_array((scale_I[None], [0]), shape=(len(scale_I),) * 2) @ part)
        return sparse.csr_array(sum(parts[1:], start=parts[0]))


def _directions(weighed_IC: sparse.csr_array, dim: int, seed: int) -> np.ndarray:
    """The first right singular vectors, strongest first, each with its largest number positive."""
    if min(weighed_IC.shape) <= dim + 1:
        right_DC = np.linalg.svd(weighed_IC.toarray(), full_matrices=False)[2][:dim]
    else:
        start = np.random.default_rng(seed).standard_normal(min(weighed_IC.shape))
        _, strength_D, right_DC = svds(weighed_IC.astype(np.float64), k=dim, v0=start)
        right_DC = right_DC[np.argsort(-strength_D)]
    largest_D = np.abs(right_DC).argmax(axis=1)
    sign_D = np.sign(right_DC[np.arange(len(right_DC)), largest_D])
    return np.ascontiguousarray((right_DC * sign_D[:, None]).T, np.float32)
