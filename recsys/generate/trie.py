"""The prefixes that exist: which code may follow which, and how many items lie behind it.

Nodes of one depth are numbered in the order of their codes, so that the children of a node stand side by side.
Shapes: I = rows of the item table, J = items and so leaves, T = levels, X = any places in the trie, C = most children of a
node of the level, B = users, E = excluded items.
"""

import numpy as np
import torch
from torch import Tensor, nn

from recsys.columns import FIRST_ID
from recsys.generate.ids import SemanticIds


class Trie(nn.Module):
    """Level t leads from nodes of depth t to those of depth t + 1; the root is node 0 of depth 0, and leaves are items."""

    def __init__(self, ids: SemanticIds):
        super().__init__()
        self.levels, self.sizes = ids.levels, ids.sizes
        code_JT = ids.code_IT[FIRST_ID:].astype(np.int64)
        order_J = np.lexsort(code_JT.T[::-1])
        code_JT = code_JT[order_J]
        self.num_items = ids.num_items
        self.widths: list[int] = []
        parent_J = np.zeros(len(code_JT), np.int64)
        changed_J = np.arange(len(code_JT)) == 0
        for level in range(self.levels):
            changed_J[1:] |= code_JT[1:, level] != code_JT[:-1, level]
            node_J = np.cumsum(changed_J) - 1
            first = np.flatnonzero(changed_J)
            children = np.bincount(parent_J[first], minlength=parent_J[-1] + 1)
            self.widths.append(int(children.max()))
            node_I = np.full(ids.num_items, len(first), np.int64)  # the reserved rows are behind no node
            node_I[FIRST_ID + order_J] = node_J
            self._keep("first", level, np.append(0, np.cumsum(children)))
            self._keep("code", level, code_JT[first, level])
            self._keep("leaf", level, np.append(first, len(code_JT)))
            self._keep("node", level, node_I)
            parent_J = node_J
        self.register_buffer("item_J", torch.from_numpy(FIRST_ID + order_J), persistent=False)

    def _keep(self, name: str, level: int, values: np.ndarray) -> None:
        self.register_buffer(f"{name}_{level}", torch.from_numpy(values.astype(np.int64)), persistent=False)

    def part(self, name: str, level: int) -> Tensor:
        """Of a level: `first` child of every node above it and, as one more entry, the number of its nodes; of its nodes the
        `code` and the first `leaf` behind, with one more entry; and the `node` of every item, for reserved rows one past the
        last."""
        return self.get_buffer(f"{name}_{level}")

    def below(self, level: int, node_X: Tensor) -> tuple[Tensor, Tensor]:
        """child_XC and whether it is one; the others repeat a node that exists."""
        first, last = self.part("first", level), len(self.part("code", level)) - 1
        child_XC = first[node_X].unsqueeze(-1) + torch.arange(self.widths[level], device=node_X.device)
        is_child_XC = child_XC < first[node_X + 1].unsqueeze(-1)
        return child_XC.clamp(max=last), is_child_XC

    def parents(self, level: int, item_X: Tensor) -> Tensor:
        """The node of depth `level` on the way to each item; the root for the reserved ids."""
        if level == 0:
            return torch.zeros_like(item_X)
        node_X = self.part("node", level - 1)[item_X]
        return torch.where(item_X >= FIRST_ID, node_X, 0)

    def codes(self, item_X: Tensor) -> Tensor:
        """code_XT of items; zeros for the reserved ids."""
        known_X = item_X >= FIRST_ID
        levels = []
        for level in range(self.levels):
            node_X = torch.where(known_X, self.part("node", level)[item_X], 0)
            levels.append(torch.where(known_X, self.part("code", level)[node_X], 0))
        return torch.stack(levels, dim=-1)

    def excluded(self, exclude_BE: Tensor) -> Tensor:
        """before_BJ1: how many of the leaves before each one are excluded; ids below FIRST_ID are padding."""
        leaf_BE = self.part("node", self.levels - 1)[exclude_BE]
        is_excluded_BJ = exclude_BE.new_zeros(exclude_BE.shape[0], self.num_items - FIRST_ID + 1).scatter(1, leaf_BE, 1)
        before_BJ = is_excluded_BJ[:, :-1].cumsum(1)
        return torch.cat([before_BJ.new_zeros(before_BJ.shape[0], 1), before_BJ], dim=1)

    def is_open(self, level: int, child_BX: Tensor, before_BJ1: Tensor) -> Tensor:
        """Whether an item is left behind each node of the level."""
        leaf = self.part("leaf", level)
        begin_BX, end_BX = leaf[child_BX], leaf[child_BX + 1]
        return before_BJ1.gather(1, end_BX) - before_BJ1.gather(1, begin_BX) < end_BX - begin_BX
