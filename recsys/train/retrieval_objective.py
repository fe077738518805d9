"""Where the terms of the retriever's loss meet: each event's loss, times its weights, reduced here and nowhere else.

Shapes: B = sequences, N = predictions, one per event of the sequences, D = width, C = rows of the item table that a batch
needs, V = rows of content that a term asks for, S = negatives, M = tokens, T = the next item and each further term.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID
from recsys.heads import RetrievalLoss
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.matryoshka import Matryoshka
from recsys.heads.similarity import Similarity
from recsys.models.item_codes import ITEM, ItemCodes
from recsys.sample.hard import Hard, Standing
from recsys.sample.negatives import Negatives, Sampler
from recsys.train.job import Drawn, Found, Outcome
from recsys.train.sampled import Compared, compare
from recsys.train.term import Asked, Change, Scene, Term
from recsys.train.weights import Passes, Trust, added, context, trust, trust_terms

NEXT_ITEM = "next_item"


class _Candidates(NamedTuple):
    """The rows of the item table that a batch needs in ascending order (None: all of them) and its shared negatives."""

    item_C: Tensor | None
    seed: int
    asked: tuple[Asked, ...] = ()  # of each further term
    negatives: Negatives | None = None
    log_expected_C: Tensor | None = None  # of targets: how often the sample is expected to hold them

    def row(self, item_X: Tensor) -> Tensor:
        """Where these items stand."""
        return item_X if self.item_C is None else torch.searchsorted(self.item_C, item_X)


class _Seen(NamedTuple):
    """One forward pass: what every event's prediction and the items came to."""

    loss_N: Tensor
    hidden_ND: Tensor
    item_CD: Tensor
    compared: Compared  # with the negatives, at the full width


@dataclass(frozen=True)
class RetrievalLearner:
    """Every event of a window is predicted from the ones before it, but for those that a batch says are only read."""

    loss: RetrievalLoss
    similarity: Similarity
    codes: ItemCodes
    matryoshka: Matryoshka | None = None
    sampler: Sampler | None = None  # of a sampled loss
    hard: Hard | None = None  # which of the sampler's negatives each row is compared with; None: all
    denoise: Trust | None = None
    weight_I: Tensor | None = None  # of every item as a target: what takes a known bias out
    terms: tuple[Term, ...] = ()
    name: str = ""  # of the denoiser, for messages

    @property
    def weights(self) -> Mapping[str, float]:
        return {NEXT_ITEM: 1.0} | {term.name: term.weight for term in self.terms}

    def draw(self, batch: Batch, generator: Generator) -> Drawn:
        target_N = batch.ids["history"].value_N
        negatives = self.sampler(target_N, generator) if self.sampler is not None else None
        if negatives is not None and self.hard is not None:
            negatives = negatives.distinct()
        asked = tuple(term.draw(batch, generator) for term in self.terms)
        random = self.denoise is not None or self.hard is not None
        seed = int(torch.randint(2**62, (1,), generator=generator)) if random else 0
        if negatives is None:
            return Drawn(_with_content(self.codes.all(), asked), _Candidates(None, seed, asked))
        wanted = [part.items for part in asked if part.items is not None]
        item_C = torch.cat([target_N, negatives.item_S, *wanted]).unique()
        log_expected_C = negatives.log_expected_N.new_zeros(len(item_C))
        log_expected_C[torch.searchsorted(item_C, target_N)] = negatives.log_expected_N
        candidates = _Candidates(item_C, seed, asked, negatives, log_expected_C)
        return Drawn(_with_content(self.codes.of(item_C), asked), candidates)

    def counts(self, batch: Batch) -> Tensor:
        events = float(len(batch.ids["history"].value_N))
        predicted_N = batch.predicted_N
        return torch.stack([predicted_N.sum(), *(predicted_N.new_tensor(events) for _ in self.terms)])

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        return ((found, part) for part in batch.split(sizes))  # the vectors are the items', whoever reads them

    def losses(self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int) -> Outcome:
        candidates: _Candidates = drawn.extra
        target_N = batch.ids["history"].value_N
        found, content_VD = _without_content(found, candidates.asked)
        seen = self._forward(model, found, batch, candidates)
        passes = Passes(lambda other: self._forward(model, other, batch, candidates).loss_N, model, found, candidates.seed)
        weight_N, terms, own = self._weights(seen.loss_N, target_N, batch, passes, step)
        terms |= seen.compared.terms
        owns = [own, None if seen.compared.own_N is None else seen.compared.own_N.mean()]
        share = batch.predicted_N.sum() / count_T[0]  # of the batch, so that its parts add up
        loss_N = seen.loss_N if weight_N is None else seen.loss_N * weight_N
        loss_T = [loss_N.sum()]
        if self.terms:
            scene = self._scene(model, found, seen, batch, candidates)
            for term, asked, vectors in zip(self.terms, candidates.asked, content_VD, strict=True):
                loss_T.append(term(replace(scene, content_VD=vectors), asked) * len(loss_N))
        return Outcome(torch.stack(loss_T) / count_T, terms, added(owns, share))

    def _forward(self, model: nn.Module, found: Found, batch: Batch, candidates: _Candidates) -> _Seen:
        window = batch.ids["history"]
        target_N = window.value_N
        place_N = candidates.row(target_N)
        read_N = torch.ones_like(target_N, dtype=torch.bool)
        read_N[window.length_B.cumsum(0) - 1] = False  # nothing follows the last event of a window
        item_CD = model.item_vectors(found, self.codes.is_known(candidates.item_C))
        if self.hard is not None and self.hard.freezes_items:
            item_CD = item_CD.detach()
        hidden_ND = model(Ids(place_N[read_N], window.length_B - 1), item_CD, batch.time_N)  # the start token predicts too
        slices = self.matryoshka.slices(hidden_ND.shape[1]) if self.matryoshka else [(hidden_ND.shape[1], 1.0)]
        found_at = [
            self._compared(hidden_ND[:, :dim], item_CD[:, :dim], window, candidates, masked=len(batch.target_N) > 0)
            for dim, _ in slices
        ]
        loss_N = sum(weight * each.loss_N for each, (_, weight) in zip(found_at, slices, strict=True))
        return _Seen(loss_N, hidden_ND, item_CD, found_at[-1])

    def _compared(self, hidden_ND: Tensor, item_CD: Tensor, window: Ids, candidates: _Candidates, *, masked: bool) -> Compared:
        user_ND, item_CD = self.similarity(hidden_ND, item_CD)
        if isinstance(self.loss, FullSoftmax):
            even = self.denoise is None and self.weight_I is None and not masked
            return Compared(self.loss(user_ND, item_CD, window.value_N, even=even))
        negatives, item_C = candidates.negatives, candidates.item_C
        assert negatives is not None
        assert item_C is not None
        assert candidates.log_expected_C is not None
        place_N = candidates.row(window.value_N)
        standing = Standing(
            user_ND, item_CD, item_C, place_N, window.length_B, candidates.row(negatives.item_S),
            negatives.log_expected_S, candidates.log_expected_C[place_N], candidates.seed,
        )  # fmt: skip
        return compare(self.loss, self.hard, standing, self.codes.num_items - FIRST_ID)

    def _weights(
        self, loss_N: Tensor, target_N: Tensor, batch: Batch, passes: Passes, step: int
    ) -> tuple[Tensor | None, dict[str, Tensor], Tensor | None]:
        """weight_N, what to log of it, and the loss of a denoiser that learns. Trust moves weight, and adds or takes none."""
        weight_N = None if self.weight_I is None else self.weight_I[target_N]
        if len(batch.target_N):
            weight_N = batch.predicted_N if weight_N is None else weight_N * batch.predicted_N
        if self.denoise is None:
            return weight_N, {}, None
        length_B = batch.ids["history"].length_B
        rows = torch.arange(len(length_B), device=length_B.device)
        label_N = torch.ones_like(loss_N, requires_grad=False)  # every event is a positive
        here = context(passes, loss_N, step=step, group_B=torch.repeat_interleave(rows, length_B))
        trust_N, own = trust(self.denoise, self.name, loss_N, label_N, here)
        terms = trust_terms(trust_N)
        before_N = torch.ones_like(trust_N) if weight_N is None else weight_N
        after_N = before_N * trust_N
        return after_N * (before_N.sum() / after_N.sum().clamp(min=1e-12)), terms, own

    def _scene(self, model: nn.Module, found: Found, seen: _Seen, batch: Batch, candidates: _Candidates) -> Scene:
        def encode(history: Ids, time_M: Tensor, change: Change | None = None) -> Tensor:
            read_ND = seen.item_CD[candidates.row(history.value_N)]
            hidden_MD = model.encode(read_ND if change is None else change(read_ND), history.length_B, time_M)
            return hidden_MD[(history.length_B + 1).cumsum(0) - 1]

        target_N = batch.ids["history"].value_N
        content_CD = {name: vector for name, vector in found.items() if name != ITEM}
        place_N = candidates.row(target_N)
        return Scene(batch, target_N, place_N, seen.hidden_ND, seen.item_CD, content_CD, {}, encode, candidates.row)


def _with_content(ids: dict[str, Ids], asked: tuple[Asked, ...]) -> dict[str, Ids]:
    """The look-ups of the items, and after them the rows of content that the terms ask for."""
    joined = dict(ids)
    for part in asked:
        for name, rows in part.content.items():
            joined[name] = Ids(
                torch.cat([joined[name].value_N, rows.value_N]), torch.cat([joined[name].length_B, rows.length_B])
            )
    return joined


def _without_content(found: Found, asked: tuple[Asked, ...]) -> tuple[Found, list[dict[str, Tensor]]]:
    """The vectors of the items, and those of each term's content."""
    items, content_VD = dict(found), [dict[str, Tensor]() for _ in asked]
    for name in found:
        those = [number for number, part in enumerate(asked) if name in part.content]
        if not those:
            continue
        sizes = [len(asked[number].content[name].length_B) for number in those]
        # one split: each slice by itself would fill a gradient of the full height
        items[name], *parts = found[name].split([len(found[ITEM]), *sizes])
        for number, vectors in zip(those, parts, strict=True):
            content_VD[number][name] = vectors
    return items, content_VD
