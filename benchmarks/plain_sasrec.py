"""SASRec as a user of PyTorch would write it: padded batches, logits for every position, cross-entropy, dense Adam.

Shapes: B = users in a batch, L = length, D = width, I = rows of the item table, U = users, N = events of a batch's histories.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.columns import FIRST_ID, TEST
from recsys.dataset import Dataset
from recsys.jagged import gather, ranges

TOP_K = 10
EVALUATION_BATCH = 256


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float, feed_forward: int):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        inner = feed_forward * dim
        self.feed = nn.Sequential(
            nn.Linear(dim, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, dim), nn.Dropout(dropout)
        )

    def forward(self, x_BLD: Tensor) -> Tensor:
        batch, length, dim = x_BLD.shape
        parts = self.query_key_value(self.norm_attention(x_BLD)).view(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
        x_BLD = x_BLD + self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        return x_BLD + self.feed(self.norm_feed(x_BLD))


class PlainSASRec(nn.Module):
    """Kang and McAuley 2018, https://arxiv.org/abs/1808.09781. Differs from the paper: padding on the right, where the causal
    mask alone hides it; pre-norm blocks; full cross-entropy."""

    def __init__(self, num_items: int, dim: int, blocks: int, heads: int, max_len: int, dropout: float, feed_forward: int):
        super().__init__()
        self.item, self.place = nn.Embedding(num_items, dim, padding_idx=0), nn.Embedding(max_len, dim)
        for table in (self.item, self.place):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout, feed_forward) for _ in range(blocks))

    def forward(self, item_BL: Tensor) -> Tensor:
        x_BLD = self.dropout(self.item(item_BL) * self.item.embedding_dim**0.5 + self.place.weight[: item_BL.shape[1]])
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return self.norm(x_BLD)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.item.weight.T


def train(
    dataset: str, *, epochs: int, batch: int, lr: float, seed: int, max_len: int, dim: int, blocks: int, heads: int,
    dropout: float, feed_forward: int,
) -> dict[str, Any]:  # fmt: skip
    """Train on the last `max_len` + 1 training events of each user and judge on the test split."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(seed)
    data = Dataset(Path(dataset))
    user_U = np.flatnonzero(data.train_length_U > 1)
    item_UL = _padded(data, user_U, data.train_length_U[user_U], max_len + 1)
    model = PlainSASRec(data.num_items, dim, blocks, heads, max_len, dropout, feed_forward)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    epoch_seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for row_B in torch.randperm(len(item_UL)).split(batch):
            given_BL, target_BL = item_UL[row_B, :-1], item_UL[row_B, 1:]
            logits_BLI = model.logits(model(given_BL))
            loss = functional.cross_entropy(logits_BLI.flatten(0, 1), target_BL.flatten(), ignore_index=0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epoch_seconds.append(time.perf_counter() - start)
    targets = int((item_UL[:, 1:] > 0).sum())
    return {"seconds": sum(epoch_seconds) / epochs, "targets": targets, "ndcg": _ndcg(model.eval(), data, max_len)}


def _padded(data: Dataset, user_U: np.ndarray, end_U: np.ndarray, length: int) -> Tensor:
    """The last `length` of the first `end_U` events of each user, zeros on the right."""
    taken_U = np.minimum(end_U, length)
    item_UL = np.zeros((len(user_U), length), np.int64)
    row_N, column_N = np.repeat(np.arange(len(user_U)), taken_U), ranges(np.zeros_like(taken_U), taken_U)
    item_UL[row_N, column_N] = gather(data.item_E, data.start_U[user_U] + end_U - taken_U, taken_U)
    return torch.from_numpy(item_UL)


@torch.no_grad()
def _ndcg(model: PlainSASRec, data: Dataset, max_len: int) -> float:
    """NDCG@10 of the one test event of each user among all items that are not in the history."""
    first_U, count_U = data.events(TEST)
    user_U = np.flatnonzero(count_U == 1)
    gains = []
    for user_B in np.array_split(user_U, -(-len(user_U) // EVALUATION_BATCH)):
        seen_B = first_U[user_B] - data.start_U[user_B]
        item_BL = _padded(data, user_B, seen_B, max_len)
        last_B = torch.from_numpy(np.minimum(seen_B, max_len) - 1)
        score_BI = model.logits(model(item_BL)[torch.arange(len(user_B)), last_B])
        score_BI[:, :FIRST_ID] = -torch.inf
        target_B = torch.from_numpy(data.item_E[first_U[user_B]].astype(np.int64))[:, None]
        wanted_B = score_BI.gather(1, target_B)
        seen_N = gather(data.item_E, data.start_U[user_B], seen_B).astype(np.int64)
        score_BI[np.repeat(np.arange(len(user_B)), seen_B), seen_N] = -torch.inf
        rank_B = (score_BI > wanted_B).sum(1)
        gains.append(torch.where(rank_B < TOP_K, 1 / (rank_B + 2.0).log2(), 0.0))
    return float(torch.cat(gains).mean())
