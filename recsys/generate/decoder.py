"""The decoder: what a user's state makes of the next item's codes, one after another.

Shapes: N = predictions, X = any places, T = levels, D = width, K = codes of a level, C = children, H = heads.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recsys.generate.trie import Trie
from recsys.spec import Spec

INIT_STD = 0.02
Cache = list[tuple[Tensor, Tensor]]  # keys and values (..., H, t, D / H) of every block


class Decoder(Spec):
    """A small causal transformer over the codes of one item, which begins with the state of the user's history.

    The depth transformer of RQ-Transformer, Lee et al. 2022, https://arxiv.org/abs/2203.01941, in the place of TIGER's
    (Rajput et al. 2023, https://arxiv.org/abs/2305.05065) encoder and decoder over all codes of a history: an item of the
    history is one token, made of its codes' vectors, so that a history of L items costs L tokens and not L * T, every event of
    a history is a prediction, and the search repeats T small steps only. Differs from both: a code is scored by the product
    of its vector with the state's direction, and blocks begin as the identity, so that a decoder whose code vectors are the
    codebooks of a retriever's item vectors begins, but for little noise, as that retriever with its items rounded to their
    codes.
    """

    blocks: int = Field(1, ge=1)
    heads: int = Field(2, ge=1, description="of attention over the codes; divides encoder.dim")
    dropout: float = Field(0.1, ge=0, lt=1)
    feed_forward: int = Field(4, ge=1, description="inner width of the feed-forward layer, in multiples of encoder.dim")
    temperature: float = Field(0.07, gt=0, description="divides the cosine-like scores of codes; smaller is sharper")
    softmax: Literal["legal", "all"] = Field(
        "legal",
        description="what a code competes with: those that lead to an item after the codes before it, or all of its level",
    )

    def build(self, dim: int, sizes: tuple[int, ...]) -> "CodeDecoder":
        return CodeDecoder(self, dim, sizes)


class _Block(nn.Module):
    def __init__(self, spec: Decoder, dim: int):
        super().__init__()
        self.heads = spec.heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        inner = spec.feed_forward * dim
        self.feed = nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))
        self.dropout = nn.Dropout(spec.dropout)
        for last in (self.out, self.feed[2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x_XTD: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend to the tokens so far: all of them at once, or, with their keys and values in `past`, one token more."""
        *places, tokens, dim = x_XTD.shape
        parts = self.query_key_value(self.norm_attention(x_XTD)).view(*places, tokens, 3, self.heads, dim // self.heads)
        query, key, value = (part.transpose(-3, -2) for part in parts.unbind(-3))
        if past is not None:
            key, value = torch.cat([past[0], key], dim=-2), torch.cat([past[1], value], dim=-2)
        flat = (part.flatten(0, -4) for part in (query, key, value))  # ONNX knows attention in four dimensions only
        mixed = functional.scaled_dot_product_attention(*flat, is_causal=past is None and tokens > 1)
        x_XTD = x_XTD + self.dropout(self.out(mixed.transpose(-3, -2).reshape(x_XTD.shape)))
        return x_XTD + self.dropout(self.feed(self.norm_feed(x_XTD))), (key, value)


class CodeDecoder(nn.Module):
    def __init__(self, spec: Decoder, dim: int, sizes: tuple[int, ...]):
        super().__init__()
        self.legal, self.temperature, self.sizes = spec.softmax == "legal", spec.temperature, sizes
        self.place = nn.Parameter(torch.randn(len(sizes), dim) * INIT_STD)
        self.read = nn.ParameterList(torch.randn(size, dim) * INIT_STD for size in sizes[:-1])  # the last code leads nowhere
        self.score = nn.ParameterList(torch.randn(size, dim) * INIT_STD for size in sizes)
        self.bias = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.blocks = nn.ModuleList(_Block(spec, dim) for _ in range(spec.blocks))

    def first(self, hidden_XD: Tensor) -> Tensor:
        """The token of level 0."""
        return hidden_XD + self.place[0]

    def next(self, level: int, before_XD: Tensor, code_X: Tensor) -> Tensor:
        """The token of a level: the one before it, and the code that followed."""
        return before_XD + self.place[level] + functional.embedding(code_X, self.read[level - 1])

    def logits(self, level: int, x_XD: Tensor) -> Tensor:
        """logit_XK of the codes of a level."""
        return functional.linear(functional.normalize(x_XD, dim=-1) / self.temperature, self.score[level], self.bias[level])

    def step(self, level: int, token_XD: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """logit_XK of a level from its token and what the blocks keep of those before."""
        x_XTD, kept = token_XD.unsqueeze(-2), []
        for number, block in enumerate(self.blocks):
            x_XTD, pair = block(x_XTD, None if cache is None else cache[number])
            kept.append(pair)
        return self.logits(level, x_XTD.squeeze(-2)), kept

    def forward(self, hidden_ND: Tensor, code_NT: Tensor) -> list[Tensor]:
        """logit_NK of every level, each given the true codes before it."""
        tokens = [self.first(hidden_ND)]
        for level in range(1, len(self.sizes)):
            tokens.append(self.next(level, tokens[-1], code_NT[..., level - 1]))
        x_NTD = torch.stack(tokens, dim=-2)
        for block in self.blocks:
            x_NTD, _ = block(x_NTD, None)
        return [self.logits(level, x_NTD[..., level, :]) for level in range(len(self.sizes))]

    def log_probs(self, trie: Trie, hidden_XD: Tensor, item_X: Tensor) -> Tensor:
        """log_prob_XT of the codes of items; those of the reserved ids are not meant to be read."""
        code_XT = trie.codes(item_X)
        levels = []
        for level, logit_XK in enumerate(self(hidden_XD, code_XT)):
            logit_XK = logit_XK.float()
            own_X = logit_XK.gather(-1, code_XT[..., level : level + 1]).squeeze(-1)
            if self.legal:
                competing_XC, _ = self.competing(trie, level, trie.parents(level, item_X), logit_XK)
                levels.append(own_X - competing_XC.logsumexp(-1))
            else:
                levels.append(own_X - logit_XK.logsumexp(-1))
        return torch.stack(levels, dim=-1)

    def competing(self, trie: Trie, level: int, node_X: Tensor, logit_XK: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the children of each node, -inf where there are no more, and the children."""
        child_XC, is_child_XC = trie.below(level, node_X)
        logit_XC = logit_XK.gather(-1, trie.part("code", level)[child_XC])
        return logit_XC.masked_fill(~is_child_XC, -torch.inf), child_XC

    def child_log_probs(self, trie: Trie, level: int, node_X: Tensor, logit_XK: Tensor) -> tuple[Tensor, Tensor]:
        """log_prob_XC of the children of each node, -inf where there are no more, and the children."""
        logit_XC, child_XC = self.competing(trie, level, node_X, logit_XK.float())
        against_XK = logit_XC if self.legal else logit_XK.float()
        return logit_XC - against_XK.logsumexp(-1, keepdim=True), child_XC


@torch.no_grad()
def codebooks(code_IT: Tensor, vector_ID: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """vector_KD of the codes of every level, whose sum over an item's codes is near the item's vector: the mean of what the
    levels before leave of the vectors of its items. Zeros for codes that no item has."""
    left_ID, found = vector_ID.clone(), []
    for level, size in enumerate(sizes):
        code_I = code_IT[:, level]
        count_K = torch.bincount(code_I, minlength=size).clamp(min=1)
        mean_KD = left_ID.new_zeros(size, left_ID.shape[1]).index_add(0, code_I, left_ID) / count_K.unsqueeze(1)
        left_ID = left_ID - mean_KD[code_I]
        found.append(mean_KD)
    return found
