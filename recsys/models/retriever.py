"""The retriever: a history encoder and an item table that both reads the history and scores the catalogue.

Shapes: B = users, L = history, N = history items of all users, M = tokens (N + one start token each), C = items of the batch,
D = width, I = rows of the item table, K = items returned, E = excluded items, G = items asked about, T = tokens of each.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recsys.batch import Ids
from recsys.columns import FIRST_ID
from recsys.models import Encoder
from recsys.models.embeddings import PooledEmbeddings, SequenceEmbeddings, TableShape
from recsys.models.item_codes import ITEM, ItemCodes
from recsys.models.item_tower import ItemTower

INIT_STD = 0.02
ENCODER = "encoder."  # what the names of its parameters begin with in a checkpoint
ITEM_TABLE = "embeddings.items.collection.embeddings.item.weight"
CONTENT_TABLE = "embeddings.content.collection.embedding_bags.{}.weight"


def _same(vectors: Tensor) -> Tensor:
    return vectors


class RetrieverTables(nn.Module):
    """The items' own table, and one of each feature of the tower."""

    def __init__(self, dim: int, num_items: int, features: Mapping[str, int]):
        super().__init__()
        self.items = SequenceEmbeddings([TableShape(ITEM, num_items, dim, (ITEM,))], INIT_STD)
        self.content = (
            PooledEmbeddings([TableShape(name, rows, dim, (name,)) for name, rows in features.items()], INIT_STD)
            if features
            else None
        )

    def forward(self, ids: Mapping[str, Ids]) -> dict[str, Tensor]:
        found = self.items({ITEM: ids[ITEM]})
        if self.content is not None:
            found |= self.content({name: row for name, row in ids.items() if name != ITEM})
        return found


class Retriever(nn.Module):
    """The training form. The loop looks up `embeddings` for the items of a batch; everything else is dense."""

    def __init__(self, encoder: Encoder, tower: ItemTower, num_items: int, features: Mapping[str, int], max_history: int):
        """`features`: rows of the table of each feature of the tower."""
        super().__init__()
        self.embeddings = RetrieverTables(encoder.dim, num_items, features)
        self.tower = tower.build()
        self.encoder = encoder.build(max_history)

    def item_vectors(self, found: Mapping[str, Tensor], known_C: Tensor) -> Tensor:
        """item_CD of the looked-up items."""
        return self.tower(found, known_C)

    def forward(self, history: Ids, item_CD: Tensor, time_M: Tensor) -> Tensor:
        """Return hidden_MD, the state after the start token and after every item; `history` counts rows of `item_CD`."""
        return self.encode(item_CD[history.value_N], history.length_B, time_M)

    def encode(self, vector_ND: Tensor, length_B: Tensor, time_M: Tensor) -> Tensor:
        """hidden_MD of histories given as vectors."""
        return self.encoder(vector_ND, length_B, time_M)


@torch.no_grad()
def item_vectors(state: Mapping[str, Tensor], tower: ItemTower, codes: ItemCodes) -> Tensor:
    """item_ID of a checkpoint: what `Retriever.item_vectors` gives for every row, also for items that came after training."""
    own_ID = state[ITEM_TABLE]
    missing = codes.num_items - len(own_ID)
    if missing > 0:
        own_ID = torch.cat([own_ID, own_ID.new_zeros(missing, own_ID.shape[1])])
    found = {ITEM: own_ID}
    for name in tower.features:
        ids, table = codes.features[name], state[CONTENT_TABLE.format(name)]
        offset_I = ids.length_B.cumsum(0) - ids.length_B
        found[name] = nn.functional.embedding_bag(ids.value_N, table, offset_I, mode="mean")
    return tower.build().eval()(found, codes.known_I)


def item_log_probs(score_BI: Tensor, item_BG: Tensor) -> Tensor:
    """log_prob_BGT (T = 1) of items under the softmax of the catalogue's scores; 0 for the reserved ids."""
    log_prob_BG = score_BI.gather(1, item_BG) - score_BI.logsumexp(1, keepdim=True)
    return log_prob_BG.where(item_BG >= FIRST_ID, 0.0)[..., None]


class RetrievalGraph(nn.Module):
    """The serving form: padded input, top-k and masks inside. Evaluation and export run this very module."""

    def __init__(
        self, encoder: Encoder, max_history: int, item_ID: Tensor, num_candidates: int, *,
        for_user: Callable[[Tensor], Tensor] = _same, for_item: Callable[[Tensor], Tensor] = _same,
        score_dim: int | None = None,
    ):  # fmt: skip
        """The score is the product of `for_user` and `for_item` of the vectors' first `score_dim` numbers."""
        super().__init__()
        self.encoder = encoder.build(max_history)
        self.for_user, self.score_dim = for_user, score_dim
        scored_ID = for_item(item_ID[:, :score_dim])
        self.item_ID = nn.Parameter(item_ID, requires_grad=False)
        self.scored_ID = self.item_ID if scored_ID is item_ID else nn.Parameter(scored_ID, requires_grad=False)
        self.num_candidates = min(num_candidates, len(item_ID) - FIRST_ID)

    @classmethod
    def from_checkpoint(
        cls, state: Mapping[str, Tensor], encoder: Encoder, tower: ItemTower, codes: ItemCodes, max_history: int,
        num_candidates: int, **sides: Any,
    ) -> "RetrievalGraph":  # fmt: skip
        graph = cls(encoder, max_history, item_vectors(state, tower, codes), num_candidates, **sides)
        graph.encoder.load_state_dict({name.removeprefix(ENCODER): t for name, t in state.items() if name.startswith(ENCODER)})
        return graph.eval()

    def forward(
        self, history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor, time_BM: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return item_BK and score_BK, best first. Excluded rows score -inf; ids below FIRST_ID are always excluded.

        `time_BM` (for an encoder that reads time): milliseconds of each event and, at column `length_B`, of the request.
        """
        return self.best(history_BL, length_B, exclude_BE, self.num_candidates, time_BM)

    def best(
        self, history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor, count: int, time_BM: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, with another number of items."""
        score_BI = self.scores(history_BL, length_B, time_BM).scatter(1, exclude_BE, -torch.inf)
        score_BK, item_BK = torch.topk(score_BI, min(count, score_BI.shape[1]), dim=1)
        return item_BK, score_BK

    def scores(self, history_BL: Tensor, length_B: Tensor, time_BM: Tensor | None = None) -> Tensor:
        """The score of every item row, -inf for the reserved ones."""
        user_BD = self.users(history_BL, length_B, time_BM)
        reserved_I = torch.arange(len(self.item_ID), device=user_BD.device) < FIRST_ID
        return (user_BD @ self.scored_ID.T).masked_fill(reserved_I, -torch.inf)

    def log_probs(self, history_BL: Tensor, length_B: Tensor, item_BG: Tensor, time_BM: Tensor | None = None) -> Tensor:
        """log_prob_BGT (T = 1) of items under the softmax of the scores; 0 for the reserved ones."""
        return item_log_probs(self.scores(history_BL, length_B, time_BM), item_BG)

    def users(self, history_BL: Tensor, length_B: Tensor, time_BM: Tensor | None = None) -> Tensor:
        """user_BD as it is scored, against `scored_ID`."""
        return self.for_user(self.encoder.encode_padded(self.item_ID[history_BL], length_B, time_BM)[:, : self.score_dim])
