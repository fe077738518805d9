"""The history itself as its view."""

from typing import Literal, Self

from torch import Generator

from recsys.augment.view import Histories, HistoryViewSpec, View, unchanged


class Dropout(HistoryViewSpec):
    """The same events: the encoder's dropout, another one for each view, makes the difference.

    DuoRec, Qiu et al. 2022, https://arxiv.org/abs/2110.05730. Differs from the paper: no positives by equal targets.
    """

    kind: Literal["dropout"] = "dropout"

    def __call__(self, histories: Histories, generator: Generator) -> View:
        return unchanged(histories)

    @classmethod
    def neutral(cls) -> Self:
        return cls()
