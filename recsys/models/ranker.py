"""The multi-task ranker: user, item and context features and the history, shared experts, one tower per task.

Shapes: B = examples or requests, C = candidates of a request, D = width of a feature's vector, T = tasks, L = history.
Names: "user", "item" and "history" are ids; every other feature is an attribute of the user, the item or the context.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recsys.batch import Ids
from recsys.columns import UNKNOWN_ID
from recsys.jagged import Jagged
from recsys.models import Sharing
from recsys.models.embeddings import PooledEmbeddings, TableShape

TABLE = "embeddings.collection.embedding_bags.{}.weight"  # a table's name in a checkpoint
BODY = "body."


def feature_order(features: Sequence[Mapping[str, Any]]) -> list[str]:
    """The order in which both forms join the vectors."""
    names = {owner: [f["name"] for f in features if f["owner"] == owner] for owner in ("user", "item", "context")}
    return ["history", "user", *names["user"], "item", *names["item"], *names["context"]]


class RankerBody(nn.Module):
    """Everything after the embeddings; training and serving share it."""

    def __init__(self, sharing: Sharing, num_features: int, dim: int, num_tasks: int, dropout: float):
        super().__init__()
        self.input = nn.Sequential(nn.LayerNorm((num_features + 1) * dim), nn.Dropout(dropout))
        self.sharing = sharing.build((num_features + 1) * dim, num_tasks)
        self.tower = nn.Parameter(torch.randn(num_tasks, sharing.hidden) * sharing.hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_tasks))

    def forward(self, vectors: Sequence[Tensor], item_D: Tensor, history_D: Tensor) -> Tensor:
        """Return logit_T for any leading dimensions; `item_D` times `history_D` tells how the item fits the history."""
        task_TH = self.sharing(self.input(torch.cat([*vectors, item_D * history_D], dim=-1)))
        return (task_TH * self.tower).sum(-1) + self.bias


class Ranker(nn.Module):
    """The training form."""

    def __init__(
        self, sharing: Sharing, num_users: int, num_items: int, features: Sequence[Mapping[str, Any]], dim: int, num_tasks: int,
        dropout: float,
    ):  # fmt: skip
        super().__init__()
        self.names = feature_order(features)
        rows = {"user": num_users, **{f["name"]: f["size"] for f in features}}
        tables = [TableShape(name, size, dim, (name,)) for name, size in rows.items()]
        tables.append(TableShape("item", num_items, dim, ("item", "history")))
        self.embeddings = PooledEmbeddings(tables, init_std=dim**-0.5 * 0.1)
        self.body = RankerBody(sharing, len(self.names), dim, num_tasks, dropout)

    def forward(self, ids: Mapping[str, Ids]) -> Tensor:
        """Return logit_BT."""
        found = self.embeddings({name: ids[name] for name in self.names})
        return self.body([found[name] for name in self.names], found["item"], found["history"])


class RankingGraph(nn.Module):
    """The serving form: ids in, probabilities out. Users' and items' attributes are folded into one row per id."""

    def __init__(
        self, state: dict[str, Tensor], sharing: Sharing, features: Sequence[Mapping[str, Any]], codes: Mapping[str, Jagged],
        dim: int, num_tasks: int, max_history: int,
    ):  # fmt: skip
        """`state`: a trained Ranker's; `codes`: user and item features of every row."""
        super().__init__()
        self.max_history = max_history
        tables = {name: state[TABLE.format(name)] for name in ["user", "item", *(f["name"] for f in features)]}
        names = {owner: [f["name"] for f in features if f["owner"] == owner] for owner in ("user", "item", "context")}
        self.user = _folded(tables, "user", names["user"], codes)
        self.item = _folded(tables, "item", names["item"], codes)
        self.item_id = nn.Parameter(tables["item"], requires_grad=False)
        self.context = nn.ParameterList([nn.Parameter(tables[name], requires_grad=False) for name in names["context"]])
        self.body = RankerBody(sharing, len(tables) + 1, dim, num_tasks, dropout=0.0)
        self.body.load_state_dict({name.removeprefix(BODY): t for name, t in state.items() if name.startswith(BODY)})
        self.eval()

    def forward(
        self, user_B: Tensor, history_BL: Tensor, length_B: Tensor, item_BC: Tensor, context_BF: Tensor | None = None
    ) -> Tensor:
        """Return probability_BCT."""
        candidates = item_BC.shape[1]
        item_BCD = self.item_id[item_BC]
        history_BCD = self._history(history_BL, length_B)[:, None].expand(-1, candidates, -1)
        user = self.user[user_B][:, None].expand(-1, candidates, -1)
        context = [
            table[_known(context_BF[:, i], len(table))][:, None].expand(-1, candidates, -1)
            for i, table in enumerate(self.context)
            if context_BF is not None
        ]
        return self.body([history_BCD, user, self.item[item_BC], *context], item_BCD, history_BCD).sigmoid()

    def _history(self, history_BL: Tensor, length_B: Tensor) -> Tensor:
        column_L = torch.arange(history_BL.shape[1])
        recent_BL = (column_L < length_B[:, None]) & (column_L >= length_B[:, None] - self.max_history)
        return (self.item_id[history_BL] * recent_BL[..., None]).sum(1) / length_B.clamp(1, self.max_history)[:, None]


def _known(code_B: Tensor, rows: int) -> Tensor:
    """A code that training never saw is unknown, not an error: the caller of the endpoint sends these."""
    return torch.where((code_B >= 0) & (code_B < rows), code_B, UNKNOWN_ID)


def _folded(tables: Mapping[str, Tensor], owner: str, names: Sequence[str], codes: Mapping[str, Jagged]) -> nn.Parameter:
    """For every id: its own vector and the mean vector of each attribute, side by side."""
    columns = [tables[owner]]
    for name in names:
        value_V, offset = (
            torch.from_numpy(codes[name].item_E.astype("int64")),
            torch.from_numpy(codes[name].offset_U1.astype("int64")),
        )
        columns.append(nn.functional.embedding_bag(value_V, tables[name], offset[:-1], mode="mean"))
    return nn.Parameter(torch.cat(columns, dim=1), requires_grad=False)
