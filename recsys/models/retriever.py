"""The retriever: a history encoder and an item table that both reads the history and scores the catalogue.

Shapes: B = users, L = history, N = history items of all users, M = tokens (N + one start token each), C = candidates,
D = width, I = rows of the item table, K = items returned, E = excluded items.
"""

import torch
from torch import Tensor, nn

from recsys.batch import Ids
from recsys.columns import FIRST_ID
from recsys.models import Encoder
from recsys.models.embeddings import SequenceEmbeddings, TableShape

ITEM_TABLE = "items.collection.embeddings.item.weight"  # its name in a checkpoint
ENCODER = "encoder."


class Retriever(nn.Module):
    """The training form."""

    def __init__(self, encoder: Encoder, num_items: int, max_history: int):
        super().__init__()
        self.items = SequenceEmbeddings([TableShape("item", num_items, encoder.dim, ("history", "candidates"))], init_std=0.02)
        self.encoder = encoder.build(max_history)

    def forward(self, history: Ids, candidate_C: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden_MD, the state after the start token and after every item, and the candidates' vectors candidate_CD."""
        length_B = torch.zeros_like(history.length_B)
        length_B[0] = len(candidate_C)  # candidates belong to the batch, TorchRec wants them in some row
        found = self.items({"history": history, "candidates": Ids(candidate_C, length_B)})
        return self.encoder(found["history"], history.length_B), found["candidates"]


class RetrievalGraph(nn.Module):
    """The serving form: padded input, top-k and masks inside. Evaluation and export run this very module."""

    def __init__(self, encoder: Encoder, max_history: int, item_ID: Tensor, num_candidates: int):
        super().__init__()
        self.encoder = encoder.build(max_history)
        self.item_ID = nn.Parameter(item_ID, requires_grad=False)
        self.num_candidates = min(num_candidates, len(item_ID) - FIRST_ID)

    @classmethod
    def from_checkpoint(
        cls, state: dict[str, Tensor], encoder: Encoder, max_history: int, num_candidates: int
    ) -> "RetrievalGraph":
        graph = cls(encoder, max_history, state[ITEM_TABLE], num_candidates)
        graph.encoder.load_state_dict({name.removeprefix(ENCODER): t for name, t in state.items() if name.startswith(ENCODER)})
        return graph.eval()

    def forward(self, history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Return item_BK and score_BK, best first. Excluded rows score -inf; ids below FIRST_ID are always excluded."""
        score_BI = self.scores(history_BL, length_B)
        score_BI = score_BI.scatter(1, exclude_BE, -torch.inf)
        score_BK, item_BK = torch.topk(score_BI, self.num_candidates, dim=1)
        return item_BK, score_BK

    def scores(self, history_BL: Tensor, length_B: Tensor) -> Tensor:
        """The score of every item row, -inf for the reserved ones."""
        user_BD = self.encoder.encode_padded(self.item_ID[history_BL], length_B)
        reserved_I = torch.arange(len(self.item_ID)) < FIRST_ID
        return (user_BD @ self.item_ID.T).masked_fill(reserved_I, -torch.inf)
