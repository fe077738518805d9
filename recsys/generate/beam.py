"""From a user's state to items: beam search and sampling that can only end in items that exist and are not excluded.

Shapes: B = users, b = beams, D = width, E = excluded items, C = children of a node, K = items returned, G = samples.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from recsys.generate.decoder import CodeDecoder
from recsys.generate.trie import Trie


def beam_search(
    decoder: CodeDecoder, trie: Trie, hidden_BD: Tensor, exclude_BE: Tensor, count: int, margins: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """item_BK and log_prob_BK of the `count` best found, best first; 0 and -inf where no more items are left.

    A prefix without an item that is left is dropped at once, at every level, so that min(`count`, items left) items are always
    found, and the search is exact where `count` is no less than the nodes of the last level but one. `margins` is given, for
    each level before the last, by how much the last prefix that was kept beat the first that was dropped.
    """
    before_BJ1 = trie.excluded(exclude_BE)
    token_BbD, cache = decoder.first(hidden_BD).unsqueeze(1), None
    node_Bb = torch.zeros_like(exclude_BE[:, :1])
    score_Bb = torch.zeros_like(hidden_BD[:, :1], dtype=torch.float32)
    for level in range(trie.levels):
        logit_BbK, cache = decoder.step(level, token_BbD, cache)
        log_prob_BbC, child_BbC = decoder.child_log_probs(trie, level, node_Bb, logit_BbK)
        child_BC = child_BbC.flatten(1)
        total_BC = (score_Bb.unsqueeze(2) + log_prob_BbC).flatten(1)
        total_BC = total_BC.masked_fill(~trie.is_open(level, child_BC, before_BJ1), -torch.inf)
        kept = min(count, total_BC.shape[1])
        score_Bb, place_Bb = total_BC.topk(kept, dim=1)
        if margins is not None and level + 1 < trie.levels:
            margins.append(_margin(total_BC, kept))
        node_Bb = child_BC.gather(1, place_Bb)
        if level + 1 < trie.levels:
            parent_Bb = place_Bb // trie.widths[level]
            cache = [(_taken(key, parent_Bb), _taken(value, parent_Bb)) for key, value in cache]
            token_BbD = decoder.next(level + 1, _taken(token_BbD, parent_Bb), trie.part("code", level)[node_Bb])
    item_BK = torch.where(torch.isfinite(score_Bb), trie.get_buffer("item_J")[node_Bb], 0)
    return item_BK, score_Bb


@torch.no_grad()
def sample(decoder: CodeDecoder, trie: Trie, hidden_BD: Tensor, exclude_BE: Tensor, count: int, generator: Generator) -> Tensor:
    """item_BG, each drawn code by code from the model over what is left; 0 where nothing is."""
    before_BJ1 = trie.excluded(exclude_BE)
    token_BGD, cache = decoder.first(hidden_BD).unsqueeze(1).expand(-1, count, -1), None
    node_BG = exclude_BE.new_zeros(len(exclude_BE), count)
    alive_BG = torch.ones_like(node_BG, dtype=torch.bool)
    for level in range(trie.levels):
        logit_BGK, cache = decoder.step(level, token_BGD, cache)
        log_prob_BGC, child_BGC = decoder.child_log_probs(trie, level, node_BG, logit_BGK)
        is_open_BC = trie.is_open(level, child_BGC.flatten(1), before_BJ1)
        log_prob_BGC = log_prob_BGC.masked_fill(~is_open_BC.view(child_BGC.shape), -torch.inf)
        alive_BG = alive_BG & torch.isfinite(log_prob_BGC).any(-1)
        uniform_BGC = torch.rand(log_prob_BGC.shape, generator=generator, device=generator.device).to(log_prob_BGC.device)
        gumbel_BGC = -(-uniform_BGC.clamp(min=1e-20).log()).clamp(min=1e-20).log()
        place_BG1 = (log_prob_BGC + gumbel_BGC).argmax(-1, keepdim=True)
        node_BG = child_BGC.gather(-1, place_BG1).squeeze(-1)
        if level + 1 < trie.levels:
            token_BGD = decoder.next(level + 1, token_BGD, trie.part("code", level)[node_BG])
    return torch.where(alive_BG, trie.get_buffer("item_J")[node_BG], 0)


def _taken(kept: Tensor, parent_Bb: Tensor) -> Tensor:
    """What was kept of each new beam's parent."""
    index = parent_Bb.view(*parent_Bb.shape, *(1 for _ in kept.shape[2:])).expand(-1, -1, *kept.shape[2:])
    return kept.gather(1, index)


def _margin(total_BC: Tensor, kept: int) -> Tensor:
    """margin_B, infinite where nothing that leads to an item was dropped."""
    best_BC = functional.pad(total_BC, (0, 1), value=-torch.inf).topk(kept + 1, dim=1).values
    return torch.where(torch.isfinite(best_BC[:, -1]), best_BC[:, -2] - best_BC[:, -1], torch.inf)
