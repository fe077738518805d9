"""Terms of the retriever's loss that compare views and pairs: families make them, and are joined here.

Shapes: B = sequences of the batch, H = histories that have views, N = events, M = tokens (events and a start token each),
V = items or pairs that are compared, F = features of the tower, I = rows of the item table, D = width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from recsys.augment import FeatureMask, HistoryView
from recsys.augment.value_dropout import value_dropout
from recsys.augment.view import Histories, View, ranges, rows, starts
from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID
from recsys.contrast import Uniformity, ViewLoss
from recsys.contrast.pairs import Pairs
from recsys.models.item_codes import ItemCodes
from recsys.train.term import Asked, Change, Scene

FEWEST_EVENTS = 2  # shorter histories have views that are equal, to each other and to those of other users


class _Read(NamedTuple):
    """Two views of H histories, the first ones of all before the second ones."""

    history: Ids
    time_M: Tensor
    change: Change | None


@dataclass(frozen=True, eq=False)
class SequenceViews:
    """Two views of one history are nearer to each other than to those of others. Every process compares its own rows."""

    first: HistoryView
    second: HistoryView
    loss: ViewLoss
    weight: float
    similar_I: Tensor | None = None
    name: str = "sequence_views"

    def draw(self, batch: Batch, generator: Generator) -> Asked:
        own, window = _own(generator), batch.ids["history"]
        start_H, length_H = _long_enough(window)
        events = Ids(window.value_N[ranges(start_H, length_H)], length_H)
        histories = Histories(events, window.value_N[start_H + length_H], self.similar_I)
        views = [view(histories, own) for view in (self.first, self.second)]
        value_N = torch.cat([view.events.value_N for view in views])
        length_V = torch.cat([view.events.length_B for view in views])
        first_V = torch.cat([start_H + view.first_B for view in views])
        time_M = batch.time_N[ranges(first_V, length_V + 1)]  # what follows a view says when it is asked
        return Asked(items=value_N, extra=_Read(Ids(value_N, length_V), time_M, _joined(views)))

    def __call__(self, scene: Scene, asked: Asked) -> Tensor:
        read: _Read = asked.extra
        if not len(read.history.length_B):
            return scene.user_ND.sum() * 0
        first_HD, second_HD = scene.encode(read.history, read.time_M, read.change).chunk(2)
        row_H = torch.arange(len(first_HD), device=first_HD.device)
        return self.loss(Pairs(first_HD, second_HD, row_H, row_H)).mean()


class _Kept(NamedTuple):
    in_first_F: list[bool]
    place_K: Tensor  # rows with known values in both views


@dataclass(frozen=True, eq=False)
class ItemViews:
    """What some features say of an item is near to what the others say of it, for items of which the log says little.

    Items are drawn uniformly from the catalogue, and an item's own vector is in neither view. A feature is looked up for the
    one view that holds it. Every process draws the same, so that the result does not depend on how many there are.
    """

    mask: FeatureMask
    value_dropout: float
    items: int
    loss: ViewLoss
    weight: float
    codes: ItemCodes
    mutual_FF: Tensor  # in the order of `codes.features`
    name: str = "item_views"

    def draw(self, batch: Batch, generator: Generator) -> Asked:
        own = _own(generator)
        drawn = torch.randint(FIRST_ID, self.codes.num_items, (self.items,), generator=own)
        item_V = drawn.unique().to(self.codes.known_I.device)  # an item twice would be its own negative
        masked_F, found = self.mask(self.mutual_FF, own).tolist(), self.codes.of(item_V)
        content = {name: value_dropout(found[name], self.value_dropout, own) for name in self.codes.features}
        lengths = list(zip(masked_F, (part.length_B for part in content.values()), strict=True))
        known_V = [torch.stack([length_V for side, length_V in lengths if side == which]).sum(0) > 0 for which in (False, True)]
        kept = _Kept([not side for side in masked_F], (known_V[0] & known_V[1]).nonzero().squeeze(1))
        return Asked(content=content, extra=kept)

    def __call__(self, scene: Scene, asked: Asked) -> Tensor:
        kept: _Kept = asked.extra
        if not len(kept.place_K):
            return scene.user_ND.sum() * 0
        vectors = list(zip(kept.in_first_F, (scene.content_VD[name] for name in self.codes.features), strict=True))
        views = [torch.stack([vector_VD for side, vector_VD in vectors if side == which]).sum(0) for which in (True, False)]
        first_KD, second_KD = (vector_VD[kept.place_K] for vector_VD in views)
        return self.loss(Pairs(first_KD, second_KD, kept.place_K, kept.place_K)).mean()


class _Picked(NamedTuple):
    event_V: Tensor
    seed: int


@dataclass(frozen=True, eq=False)
class UserItemPairs:
    """Every user's state and the item that followed. Every process compares its own rows."""

    loss: Uniformity
    name: str = "uniformity"

    @property
    def weight(self) -> float:
        return self.loss.weight

    def draw(self, batch: Batch, generator: Generator) -> Asked:
        own, events = _own(generator), batch.ids["history"].value_N
        event_V = torch.randperm(len(events), generator=own)[: self.loss.pairs].to(events.device)
        return Asked(extra=_Picked(event_V, own.initial_seed()))

    def __call__(self, scene: Scene, asked: Asked) -> Tensor:
        event_V, seed = asked.extra
        place_V, row_N = scene.place_N[event_V], rows(scene.batch.ids["history"].length_B)
        content = scene.content_CD.values() if self.loss.reads_modalities else ()
        described = tuple(vector_CD[place_V] for vector_CD in content)
        pairs = Pairs(
            scene.user_ND[event_V], scene.item_CD[place_V], row_N[event_V], scene.target_N[event_V], described, seed
        )  # fmt: skip
        return self.loss(pairs).mean()


def _own(generator: Generator) -> Generator:
    """A generator of the term's own: how much it draws depends on the batch, which is another one on each process."""
    return Generator().manual_seed(int(torch.randint(2**62, (1,), generator=generator)))


def _long_enough(window: Ids) -> tuple[Tensor, Tensor]:
    """Where the histories to view begin, and their lengths without the last event, which is only predicted."""
    read_B = window.length_B - 1
    long_B = read_B >= FEWEST_EVENTS
    return starts(window.length_B)[long_B], read_B[long_B]


def _joined(views: list[View]) -> Change | None:
    if all(view.change is None for view in views):
        return None
    sizes = [len(view.events.value_N) for view in views]

    def change(vector_ND: Tensor) -> Tensor:
        parts = zip(views, vector_ND.split(sizes), strict=True)
        return torch.cat([part if view.change is None else view.change(part) for view, part in parts])

    return change
