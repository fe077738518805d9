"""The generator: a history encoder whose state a decoder turns into the codes of the next item.

Shapes: B = users, L = history, N = history items of all users, M = tokens (N + one start token each), C = items of the batch,
D = width, E = excluded items, K = items returned, G = candidates, T = levels.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from recsys.batch import Ids
from recsys.columns import FIRST_ID
from recsys.generate.beam import beam_search
from recsys.generate.decoder import Decoder
from recsys.generate.ids import SemanticIds
from recsys.generate.trie import Trie
from recsys.jagged import Jagged
from recsys.models import Encoder
from recsys.models.item_codes import ItemCodes
from recsys.models.item_tower import ItemTower
from recsys.models.retriever import ENCODER, RetrieverTables, item_vectors

CODES = "semantic_id"  # the feature of an item that its codes are
DECODER = "decoder."


def generator_codes(
    ids: SemanticIds, train_count_I: np.ndarray, features: Mapping[str, Jagged], *, own_row: bool, device: torch.device
) -> ItemCodes:
    """What the tables are asked for an item of a history: its codes, its other features and, with `own_row`, itself."""
    offset_T = np.concatenate([[0], np.cumsum(ids.sizes)])[:-1]
    length_I = np.where(np.arange(ids.num_items) >= FIRST_ID, ids.levels, 0)
    tokens = Jagged((ids.code_IT[FIRST_ID:] + offset_T).ravel(), np.concatenate([[0], np.cumsum(length_I)]))
    known_I = np.asarray(train_count_I) * own_row
    return ItemCodes.make(known_I, {**features, CODES: tokens}, device)


def with_codes(tower: ItemTower) -> ItemTower:
    """The tower that reads an item's codes beside its features."""
    return tower.model_copy(update={"features": (*tower.features, CODES)})


class Generator(nn.Module):
    """The training form. The loop looks up `embeddings` for the items of a batch; everything else is dense."""

    def __init__(
        self, encoder: Encoder, tower: ItemTower, decoder: Decoder, ids: SemanticIds, features: Mapping[str, int],
        max_history: int,
    ):  # fmt: skip
        """`features`: rows of the table of each feature of the tower."""
        super().__init__()
        self.embeddings = RetrieverTables(encoder.dim, ids.num_items, {**features, CODES: sum(ids.sizes)})
        self.tower = with_codes(tower).build()
        self.encoder = encoder.build(max_history)
        self.decoder = decoder.build(encoder.dim, ids.sizes)
        self.trie = Trie(ids)

    def item_vectors(self, found: Mapping[str, Tensor], known_C: Tensor) -> Tensor:
        """item_CD of the looked-up items."""
        return self.tower(found, known_C)

    def forward(self, history: Ids, item_CD: Tensor, time_M: Tensor) -> Tensor:
        """Return hidden_MD, the state after the start token and after every item; `history` counts rows of `item_CD`."""
        return self.encoder(item_CD[history.value_N], history.length_B, time_M)


class GenerationGraph(nn.Module):
    """The serving form: padded input, the search inside. Evaluation and export run this very module."""

    def __init__(
        self, encoder: Encoder, decoder: Decoder, ids: SemanticIds, item_ID: Tensor, max_history: int, num_candidates: int
    ):
        super().__init__()
        self.encoder = encoder.build(max_history)
        self.decoder = decoder.build(encoder.dim, ids.sizes)
        self.trie = Trie(ids)
        self.item_ID = nn.Parameter(item_ID, requires_grad=False)
        self.num_candidates = min(num_candidates, ids.num_items - FIRST_ID)

    @classmethod
    def from_checkpoint(
        cls, state: Mapping[str, Tensor], encoder: Encoder, tower: ItemTower, decoder: Decoder, ids: SemanticIds,
        codes: ItemCodes, max_history: int, num_candidates: int,
    ) -> "GenerationGraph":  # fmt: skip
        """`codes`: of `generator_codes`."""
        item_ID = item_vectors(state, with_codes(tower), codes)
        graph = cls(encoder, decoder, ids, item_ID, max_history, num_candidates)
        for name, part in ((ENCODER, graph.encoder), (DECODER, graph.decoder)):
            part.load_state_dict({key.removeprefix(name): t for key, t in state.items() if key.startswith(name)})
        return graph.eval()

    def forward(
        self, history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor, time_BM: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return item_BK and their log-probabilities, best first; 0 and -inf where no more items are left.

        `time_BM` as of `RetrievalGraph`. Ids below FIRST_ID in `exclude_BE` are padding.
        """
        return self.best(history_BL, length_B, exclude_BE, self.num_candidates, time_BM)

    def best(
        self, history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor, count: int, time_BM: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, with another number of items. The search is never narrower than when serving."""
        width = max(count, self.num_candidates)
        item_BK, score_BK = beam_search(
            self.decoder, self.trie, self.hidden(history_BL, length_B, time_BM), exclude_BE, width
        )  # fmt: skip
        return item_BK[:, :count], score_BK[:, :count]

    def hidden(self, history_BL: Tensor, length_B: Tensor, time_BM: Tensor | None = None) -> Tensor:
        """The state after each user's last event."""
        return self.encoder.encode_padded(self.item_ID[history_BL], length_B, time_BM)

    def log_probs(self, history_BL: Tensor, length_B: Tensor, item_BG: Tensor, time_BM: Tensor | None = None) -> Tensor:
        """log_prob_BGT of the codes of items; 0 for the reserved ids."""
        hidden_BGD = self.hidden(history_BL, length_B, time_BM).unsqueeze(1).expand(-1, item_BG.shape[1], -1)
        log_prob_BGT = self.decoder.log_probs(self.trie, hidden_BGD, item_BG)
        return log_prob_BGT.masked_fill((item_BG < FIRST_ID).unsqueeze(-1), 0.0)
