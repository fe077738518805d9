"""A checkpoint as ordinary parameters: what training lost on, with a gradient for every number, tables included.

Runs in this process on the CPU, without dropout, through the learner that trained the model. Shapes: B = rows of the batch,
S = sections of it, T = tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.errors import InputError
from recsys.models.embeddings import PooledEmbeddings, SequenceEmbeddings
from recsys.train.distil_tasks import TaskDistillation
from recsys.train.distil_term import Distillation
from recsys.train.job import Job
from recsys.train.retrieval_objective import RetrievalLearner

TABLES = "embeddings."


class Plain:
    """`parameters` are the checkpoint's floating numbers by name. `teacher`: whose answers `kept` holds on to, beside the
    labels of the log. Raises InputError for tables with an id map."""

    def __init__(self, job: Job, state: Mapping[str, Tensor], teacher: Distillation | TaskDistillation | None = None):
        self.model = job.build().eval()
        self.learner = _bare(job.learner)
        self._taught = self.learner if teacher is None else _taught(self.learner, teacher)
        self._tables = _look_ups(self.model)
        self.parameters: dict[str, Tensor] = {}
        for name, child in self.model.named_children():
            if f"{name}." != TABLES:
                child.load_state_dict({k.removeprefix(f"{name}."): t for k, t in state.items() if k.startswith(f"{name}.")})
                self.parameters |= {f"{name}.{key}": parameter for key, parameter in child.named_parameters()}
        for name in {table for table, _ in self._tables.values()}:
            self.parameters[name] = nn.Parameter(state[name].clone())
        self._rest = {name: tensor for name, tensor in state.items() if name not in self.parameters}

    def state(self) -> dict[str, Tensor]:
        """The whole checkpoint, as it is now."""
        return self._rest | {name: tensor.detach().clone() for name, tensor in self.parameters.items()}

    def losses(self, batch: Batch, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """sum_S and count_S: the sum of the losses of the next `sizes[i]` rows each, all tasks together, and of how many."""
        drawn = self.learner.draw(batch, Generator().manual_seed(0))
        found = {name: self._vectors(name, drawn.ids[name]) for name in self._tables if name in drawn.ids}
        sums, counts = [], []
        for vectors, part in self.learner.parts(self.model, found, batch, list(sizes)):
            count_T = self.learner.counts(part)
            mean_T = self.learner.losses(self.model, vectors, part, drawn, count_T.clamp(min=1e-12), 0).loss_T
            sums.append((mean_T * count_T).sum())
            counts.append(count_T.sum())
        return torch.stack(sums), torch.stack(counts)

    def kept(self, batch: Batch) -> Tensor:
        """The loss that holds a batch of the others: the mean of the log's labels and, weighed, of the teacher's answers."""
        drawn = self._taught.draw(batch, Generator().manual_seed(0))
        found = {name: self._vectors(name, drawn.ids[name]) for name in self._tables if name in drawn.ids}
        count_T = self._taught.counts(batch).clamp(min=1e-12)
        loss_T = self._taught.losses(self.model, found, batch, drawn, count_T, 0).loss_T
        return (loss_T * loss_T.new_tensor(list(self._taught.weights.values()))).sum()

    def gradient(self, batch: Batch) -> dict[str, Tensor]:
        """Of the mean loss of a batch."""
        sum_S, count_S = self.losses(batch, [batch.rows])
        values = list(self.parameters.values())
        found = torch.autograd.grad(sum_S.sum() / count_S.sum().clamp(min=1e-12), values, allow_unused=True)
        return {
            name: torch.zeros_like(value) if grad is None else grad
            for (name, value), grad in zip(self.parameters.items(), found, strict=True)
        }

    def _vectors(self, name: str, ids: Ids) -> Tensor:
        table, is_pooled = self._tables[name]
        if not is_pooled:
            return self.parameters[table][ids.value_N]
        offset_B = ids.length_B.cumsum(0) - ids.length_B
        return nn.functional.embedding_bag(ids.value_N, self.parameters[table], offset_B, mode="mean")


def _bare(learner: Any) -> Any:
    """The same learner without what weighs, adds to or samples its losses at random for the sake of training."""
    if isinstance(learner, RetrievalLearner):
        return replace(learner, denoise=None, hard=None, weight_I=None, terms=())
    return replace(learner, denoise=(), debias=None, distil=None)


def _taught(learner: Any, teacher: Distillation | TaskDistillation) -> Any:
    return replace(learner, terms=(teacher,)) if isinstance(teacher, Distillation) else replace(learner, distil=teacher)


def _look_ups(model: nn.Module) -> dict[str, tuple[str, bool]]:
    """Feature -> the parameter that holds its table, and whether rows are averaged."""
    found: dict[str, tuple[str, bool]] = {}
    for path, module in model.get_submodule("embeddings").named_modules():
        if not isinstance(module, SequenceEmbeddings | PooledEmbeddings):
            continue
        if module.managed_rows:
            raise InputError(
                f"tables {sorted(module.managed_rows)} have an id map, whose rows several users may share: use --method retrain"
            )
        pooled = isinstance(module, PooledEmbeddings)
        collection: Any = module.collection
        configs = collection.embedding_bag_configs() if pooled else collection.embedding_configs()
        kind = "embedding_bags" if pooled else "embeddings"
        for config in configs:
            name = f"{TABLES}{path}.collection.{kind}.{config.name}.weight"
            found |= dict.fromkeys(config.feature_names, (name, pooled))
    return found
