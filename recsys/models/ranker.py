"""The multi-task ranker: user, item and context features and the history, crossed, shared between tasks.

Shapes: B = examples or requests, C = candidates of a request (one in training), D = width of a feature's vector, F = fields
(features, the product of item and history, and point-in-time features), T = tasks, L = history, N = events of all histories,
P = point-in-time features.
Names: "user", "item" and "history" are ids; every other feature is an attribute of the user, the item or the context.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from recsys.batch import Batch, Ids
from recsys.columns import UNKNOWN_ID
from recsys.jagged import Jagged
from recsys.models import History, Interaction, Sharing
from recsys.models.dense_features import DenseFeatures, Scale
from recsys.models.embeddings import PooledEmbeddings, SequenceEmbeddings, TableShape
from recsys.models.managed_collision import ManagedCollision, folded
from recsys.models.mixture import Gate
from recsys.models.ranker_inputs import RankerInputs

POOLED_TABLE = "embeddings.pooled.collection.embedding_bags.{}.weight"  # a table's name in a checkpoint
SEQUENCE_TABLE = "embeddings.sequence.collection.embeddings.{}.weight"
BODY = "body."


@dataclass(frozen=True)
class RankerDesign:
    """What the training and the serving form are both made from."""

    history: History
    interaction: Interaction | None
    sharing: Sharing
    dim: int
    tasks: tuple[str, ...]
    regression: frozenset[str] = frozenset()  # tasks whose answer is a number; the others' is a probability
    dropout: float = 0.0
    managed: Mapping[str, ManagedCollision] = field(default_factory=dict)  # tables with fewer rows than ids
    dense: tuple[str, ...] = ()  # point-in-time features

    @property
    def reads_sequence(self) -> bool:
        """Whether the history is needed event by event; its mean is a much cheaper look-up."""
        return self.history.reads_sequence or self.sharing.reads_behaviours

    def answer(self, logit_BCT: Tensor) -> Tensor:
        """Each task's probability, or number."""
        if not self.regression:
            return logit_BCT.sigmoid()
        is_number_T = torch.tensor([task in self.regression for task in self.tasks], device=logit_BCT.device)
        return torch.where(is_number_T, logit_BCT, logit_BCT.sigmoid())


def feature_order(features: Sequence[Mapping[str, Any]]) -> list[str]:
    """The order in which both forms join the vectors; the history's comes before them."""
    names = {owner: [f["name"] for f in features if f["owner"] == owner] for owner in ("user", "item", "context")}
    return ["user", *names["user"], "item", *names["item"], *names["context"]]


class RankerBody(nn.Module):
    """Everything after the embeddings; training and serving share it."""

    def __init__(self, design: RankerDesign, num_features: int):
        super().__init__()
        fields, dim = num_features + 2 + bool(design.dense), design.dim
        self.dim = dim
        self.history = design.history.build(dim)
        self.input = nn.Sequential(nn.LayerNorm(fields * dim), nn.Dropout(design.dropout))
        self.interaction = design.interaction.build(fields * dim) if design.interaction else nn.Identity()
        self.sharing = design.sharing.build(fields, dim, design.tasks)
        self.dense = DenseFeatures(len(design.dense), dim) if design.dense else None

    def forward(
        self, vectors: Sequence[Tensor], item_BCD: Tensor, history_BLD: Tensor, inside_BL: Tensor,
        behaviour_BL: Tensor | None = None, dense_BCP: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return logit_BCT. `vectors` hold one feature or several side by side, for each candidate or one for all of them.
        Item times history tells how the item fits the history."""
        history_BCD = self.history(item_BCD, history_BLD, inside_BL)
        every = [history_BCD, *vectors, item_BCD * history_BCD]
        if self.dense is not None:
            assert dense_BCP is not None, "the point-in-time features that this ranker reads are missing"
            every.append(self.dense(dense_BCP))
        joined = torch.cat([vector.expand(-1, item_BCD.shape[1], -1) for vector in every], dim=-1)
        field_BCFD = self.interaction(self.input(joined)).unflatten(-1, (-1, self.dim))
        return self.sharing(RankerInputs(field_BCFD, item_BCD, history_BLD, inside_BL, behaviour_BL))


class RankerEmbeddings(nn.Module):
    """The tables. Items and history are looked up event by event where the design reads them so, else pooled like the rest."""

    def __init__(self, tables: Sequence[TableShape], item: TableShape, *, sequence: bool, init_std: float):
        super().__init__()
        pooled = list(tables) if sequence else [*tables, item]
        self.pooled = PooledEmbeddings(pooled, init_std)
        self.sequence = SequenceEmbeddings([item], init_std) if sequence else None
        self.pooled_names = [name for table in pooled for name in table.features]
        self.sequence_names = list(item.features) if sequence else []

    def forward(self, ids: Mapping[str, Ids]) -> dict[str, Tensor]:
        """Vectors by feature name, vector_BD; with `sequence` the history's are vector_ND. The order of `ids` does not matter:
        TorchRec keeps the one of its first call."""
        found = self.pooled({name: ids[name] for name in self.pooled_names})
        if self.sequence is None:
            return found
        return found | self.sequence({name: ids[name] for name in self.sequence_names})


class Ranker(nn.Module):
    """The training form."""

    def __init__(
        self, design: RankerDesign, num_users: int, num_items: int, features: Sequence[Mapping[str, Any]],
        scale: Scale | None = None,
    ):  # fmt: skip
        """`scale`: of the point-in-time features, where the design reads any."""
        super().__init__()
        self.design, self.names = design, feature_order(features)
        rows = {"user": num_users, **{f["name"]: f["size"] for f in features}}
        managed = design.managed
        tables = [TableShape(name, size, design.dim, (name,), managed.get(name)) for name, size in rows.items()]
        item = TableShape("item", num_items, design.dim, ("item", "history"), managed.get("item"))
        std = design.dim**-0.5 * 0.1
        self.embeddings = RankerEmbeddings(tables, item, sequence=design.reads_sequence, init_std=std)
        self.body = RankerBody(design, len(self.names))
        if self.body.dense is not None and scale is not None:
            self.body.dense.set_scale(scale)

    def look_ups(self, batch: Batch) -> dict[str, Ids]:
        """What `embeddings` is asked for."""
        return {name: batch.ids[name] for name in ["history", *self.names]}

    def forward(self, found: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return logit_BT from the vectors of `look_ups(batch)`."""
        length_B, behaviour_BL = batch.ids["history"].length_B, None
        if self.design.reads_sequence:
            history_BLD, inside_BL = _padded(found["history"], length_B)
        else:  # a mean over one event, which is the mean itself
            history_BLD, inside_BL = found["history"][:, None], length_B[:, None] > 0
        if self.design.sharing.reads_behaviours:
            behaviour_BL = Ids(batch.behaviour_N, length_B).padded()
        vectors = [found[name][:, None] for name in self.names]
        dense_B1P = batch.dense_BF[:, None] if self.design.dense else None
        return self.body(vectors, found["item"][:, None], history_BLD, inside_BL, behaviour_BL, dense_B1P)[:, 0]

    def parts(
        self, found: Mapping[str, Tensor], batch: Batch, sizes: Sequence[int]
    ) -> Iterator[tuple[dict[str, Tensor], Batch]]:
        """The next `sizes[i]` rows each, with the vectors they read."""
        row = event = 0
        for size, part in zip(sizes, batch.split(sizes), strict=True):
            events = len(part.ids["history"].value_N)
            cut = {name: vector[row : row + size] for name, vector in found.items()}
            if self.design.reads_sequence:
                cut["history"] = found["history"][event : event + events]
            yield cut, part
            row, event = row + size, event + events

    def task_parameters(self) -> list[nn.Parameter]:
        """Dense parameters, or rows of them, that the loss of one task alone reaches."""
        return self.body.sharing.task_parameters()

    def shared_parameters(self) -> list[nn.Parameter]:
        """The other dense parameters."""
        own = {id(parameter) for parameter in self.task_parameters()}
        return [parameter for parameter in self.body.parameters() if id(parameter) not in own]

    def gate_entropy(self) -> dict[str, Tensor]:
        """Of every softmax gate in the last training step, in nats; empty where experts are not gated."""
        gates = (module for module in self.modules() if isinstance(module, Gate))
        return {f"gate_entropy/{name}": value for gate in gates for name, value in zip(gate.names, gate.entropy_G, strict=True)}


class RankingGraph(nn.Module):
    """The serving form: ids in, answers out. Users' and items' attributes are folded into one row per id."""

    def __init__(
        self, state: Mapping[str, Tensor], design: RankerDesign, features: Sequence[Mapping[str, Any]],
        codes: Mapping[str, Jagged], max_history: int, num_ids: Mapping[str, int] | None = None,
    ):  # fmt: skip
        """`state`: a trained Ranker's; `codes`: user and item features of every row; `max_history`: events the ranker reads;
        `num_ids`: how many ids each table with fewer rows than ids serves."""
        super().__init__()
        self.design, self.max_history = design, max_history
        self.reads_behaviours = design.sharing.reads_behaviours
        order = feature_order(features)
        tables = {name: folded(state, name, (num_ids or {}).get(name, 0)) for name in order}
        names = {owner: [f["name"] for f in features if f["owner"] == owner] for owner in ("user", "item", "context")}
        self.user = _folded(tables, "user", names["user"], codes)
        self.item = _folded(tables, "item", names["item"], codes)
        self.item_id = nn.Parameter(tables["item"], requires_grad=False)
        self.context = nn.ParameterList([nn.Parameter(tables[name], requires_grad=False) for name in names["context"]])
        self.body = RankerBody(design, len(order))
        self.body.load_state_dict({name.removeprefix(BODY): t for name, t in state.items() if name.startswith(BODY)})
        self.eval()

    def forward(
        self, user_B: Tensor, history_BL: Tensor, length_B: Tensor, item_BC: Tensor, context_BF: Tensor | None = None,
        behaviour_BL: Tensor | None = None, dense_BCP: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return answer_BCT: probabilities, and the numbers of regression tasks."""
        column_L = torch.arange(history_BL.shape[1], device=history_BL.device)
        inside_BL = (column_L < length_B[:, None]) & (column_L >= length_B[:, None] - self.max_history)
        vectors = [self.user[user_B][:, None], self.item[item_BC]]
        if context_BF is not None:
            vectors += [table[_known(context_BF[:, i], len(table))][:, None] for i, table in enumerate(self.context)]
        logit_BCT = self.body(vectors, self.item_id[item_BC], self.item_id[history_BL], inside_BL, behaviour_BL, dense_BCP)
        return self.design.answer(logit_BCT)


def _padded(vector_ND: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
    """vector_BLD with zeros on the right, at least one column, and inside_BL."""
    longest = max(1, int(length_B.max())) if len(length_B) else 1
    inside_BL = torch.arange(longest, device=length_B.device) < length_B[:, None]
    flat = vector_ND.new_zeros(inside_BL.numel(), vector_ND.shape[1])
    flat = flat.index_copy(0, inside_BL.flatten().nonzero().squeeze(1), vector_ND)
    return flat.view(*inside_BL.shape, -1), inside_BL


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
