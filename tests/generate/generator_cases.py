"""Small catalogues with semantic ids, decoders whose probabilities a test can work out, and exhaustive answers beside them.

Shapes: I = rows of the item table, J = items, T = levels, B = users, E = excluded items, D = width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.columns import FIRST_ID
from recsys.generate.decoder import CodeDecoder, Decoder
from recsys.generate.ids import NO_CODE, SemanticIds
from recsys.generate.trie import Trie

DIM = 8


def ids_of(codes: Sequence[Sequence[int]], sizes: tuple[int, ...] | None = None) -> SemanticIds:
    """Items from FIRST_ID on, in this order."""
    code_JT = np.array(codes, np.int32)
    reserved = np.full((FIRST_ID, code_JT.shape[1]), NO_CODE, np.int32)
    sizes = sizes or tuple(int(size) for size in code_JT.max(axis=0) + 1)
    return SemanticIds(np.concatenate([reserved, code_JT]), sizes)


def random_ids(sizes: tuple[int, ...], items: int, seed: int) -> SemanticIds:
    """Any of the trie's leaves, in any order: prefixes with one leaf and with many."""
    chosen = np.random.default_rng(seed).permutation(int(np.prod(sizes)))[:items]
    return ids_of(np.stack(np.unravel_index(chosen, sizes), axis=1).tolist(), sizes)


def random_decoder(ids: SemanticIds, seed: int, softmax: str = "legal", **settings: int) -> CodeDecoder:
    """Sharp enough that scores of items are apart."""
    torch.manual_seed(seed)
    decoder = Decoder(softmax=softmax, dropout=0.0, temperature=0.5, **settings).build(DIM, ids.sizes)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return decoder.eval()


def fixed_decoder(ids: SemanticIds, probability: Sequence[dict[tuple[int, ...], Sequence[float]]], softmax: str) -> CodeDecoder:
    """Gives the codes of a level these probabilities over all of the level, by the codes before them."""

    class Fixed(CodeDecoder):
        def first(self, hidden_XD: Tensor) -> Tensor:
            return torch.zeros_like(hidden_XD[..., :1])

        def next(self, level: int, before_XD: Tensor, code_X: Tensor) -> Tensor:
            return code_X.unsqueeze(-1).float()

        def step(self, level, token_XD, cache):  # type: ignore[no-untyped-def]
            logit_XK = self.table(level, token_XD.squeeze(-1).long())
            keys = token_XD.unsqueeze(-2).unsqueeze(-2)
            return logit_XK, [(keys, keys)]

        def forward(self, hidden_ND: Tensor, code_NT: Tensor) -> list[Tensor]:
            before = [torch.zeros_like(code_NT[..., 0]), *code_NT[..., :-1].unbind(-1)]
            return [self.table(level, code_N) for level, code_N in enumerate(before)]

        def table(self, level: int, code_X: Tensor) -> Tensor:
            """Two levels at most: the code before stands for all that is before."""
            rows = [probability[level].get((code,) if level else (), [1.0] * ids.sizes[level]) for code in range(8)]
            return torch.tensor(rows).log()[code_X]

    return Fixed(Decoder(softmax=softmax), DIM, ids.sizes)  # type: ignore[arg-type]


@torch.no_grad()
def all_log_probs(decoder: CodeDecoder, trie: Trie, hidden_BD: Tensor) -> Tensor:
    """log_prob_BJ of every item, by the pass that training takes."""
    item_BJ = torch.arange(FIRST_ID, trie.num_items).expand(len(hidden_BD), -1)
    hidden_BJD = hidden_BD.unsqueeze(1).expand(-1, item_BJ.shape[1], -1)
    return decoder.log_probs(trie, hidden_BJD, item_BJ).sum(-1)


def best_of_all(log_prob_BJ: Tensor, exclude_BE: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Exhaustive: the `count` most probable items that are not excluded."""
    score_BI = torch.cat([torch.full((len(log_prob_BJ), FIRST_ID), -torch.inf), log_prob_BJ], dim=1)
    score_BI = score_BI.scatter(1, exclude_BE, -torch.inf)
    score_BK, item_BK = score_BI.topk(min(count, score_BI.shape[1]), dim=1)
    return torch.where(torch.isfinite(score_BK), item_BK, 0), score_BK
