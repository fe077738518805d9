"""A checkpoint -> one that has forgotten users, without training anew. Dense ids are those of the dataset with these users.

Shapes: F = users to forget, N = users who were never trained on, U = users of a batch, R = rows of a table, D = width.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipelines import models
from pipelines.forget.plain import Plain
from pipelines.forget.probe import USERS_AT_ONCE, Probe, gains, probe, with_rows
from pipelines.forget.without import Without
from pipelines.train import ranker_job, retriever_job
from recsys.batch import Batch
from recsys.columns import TRAIN, UNKNOWN_ID
from recsys.config import RunConfig
from recsys.continual.dampening import Dampening, importance
from recsys.continual.distil import Distil
from recsys.continual.loreun import LoReUn, shortfall
from recsys.continual.membership import attack
from recsys.dataset import Dataset
from recsys.spec import Spec
from recsys.train.distil_tasks import TaskDistillation
from recsys.train.distil_term import Distillation
from recsys.train.job import Job

JOBS: dict[str, Callable[..., Job]] = {"retriever": retriever_job, "ranker": ranker_job}
USER_TABLE = ".user.weight"
CPU = torch.device("cpu")


class Unlearning(Spec):
    """How `unlearn` goes about it."""

    weights: LoReUn = LoReUn()
    distil: Distil = Distil(weight=4.0, temperature=1.0)
    learning_rate: float = Field(2e-3, gt=0)
    passes: int = Field(60, ge=1, description="over the users to forget, at most")
    retain: float = Field(3.0, ge=0, description="weight of the others: of their labels and of the old model's answers")
    batches: int = Field(2, ge=1, description="of the others, of the size of training, in each step")
    enough: float = Field(0.0, ge=0, description="the attack's AUC may be so far above 1/2")


DAMPENING, UNLEARNING = Dampening(), Unlearning()


def delete_rows(state: Mapping[str, Tensor], forget_F: np.ndarray) -> dict[str, Tensor]:
    """The users' own rows become that of unknown users."""
    found = dict(state)
    for name, table_RD in state.items():
        if name.endswith(USER_TABLE):
            found[name] = table_RD.clone()
            found[name][torch.from_numpy(forget_F)] = table_RD[UNKNOWN_ID]
    return found


def dampen(
    config: RunConfig, data: Dataset, part: str, state: Mapping[str, Tensor], forget_F: np.ndarray,
    spec: Dampening = DAMPENING, *, batches: int = 64,
) -> tuple[dict[str, Tensor], dict[str, Any]]:  # fmt: skip
    """Selective synaptic dampening, after the users' rows are deleted. Returns the checkpoint, and what was changed; rows
    alone where the model was trained on nothing of theirs."""
    whole = JOBS[part](config, data, CPU)
    plain = Plain(whole, delete_rows(state, forget_F))
    found, together = probe(config, data, part), min(len(forget_F), USERS_AT_ONCE)
    theirs = list(islice(_of_users(found, forget_F, together), batches))
    if not theirs:
        return plain.state(), {"trained_on": 0}
    of_forgotten = importance(plain.gradient(batch) for batch in theirs)
    rows = max(1, round(sum(batch.rows for batch in theirs) / len(theirs)))
    sample = np.random.default_rng(config.seed).permutation(np.flatnonzero(data.events(TRAIN)[1]))
    of_all = importance(plain.gradient(batch) for batch in islice(_of_users(found, sample, together), batches))
    changed = 0
    for name, value in plain.parameters.items():
        dampened = spec(value.detach(), of_all[name], of_forgotten[name])
        changed += int((dampened != value).sum())
        value.data.copy_(dampened)
    numbers = sum(value.numel() for value in plain.parameters.values())
    return plain.state(), {"dampened": changed, "numbers": numbers, "rows_of_a_batch": rows, **spec.model_dump()}


def unlearn(
    config: RunConfig, data: Dataset, part: str, state: Mapping[str, Tensor], forget_F: np.ndarray, unseen_N: np.ndarray,
    spec: Unlearning = UNLEARNING, *, unseen_splits: tuple[int, ...] = (TRAIN,),
) -> tuple[dict[str, Tensor], dict[str, Any]]:  # fmt: skip
    """Raise the loss on the users' events until they look like users who were never trained on, and no further, while the
    others are trained on as ever. Returns the checkpoint, and how far it came.

    Bounded gradient ascent, weighed by LoReUn; Adam on all numbers of the model. `unseen_N`, users who were never trained on,
    give the levels, anew before each pass: the most remembered of the forgotten is to be left with the gain of the best
    predicted of the unseen, and so on down. It ends once the membership attack cannot tell the two groups apart. Where the
    model was trained on nothing of the users', their rows alone go.
    """
    rest = Without(data, np.concatenate([forget_F, unseen_N]))
    job, state = JOBS[part](config, rest, CPU), delete_rows(state, forget_F)
    plain, found = Plain(job, state, _teacher(config, rest, part, state, spec.distil)), probe(config, data, part)
    optimizer = torch.optim.Adam(plain.parameters.values(), lr=spec.learning_rate)
    rng, kept, passes = np.random.default_rng(config.seed), _forever(job), 0
    while True:
        user_U, gain_U = gains(plain, found, forget_F, (TRAIN,), known=False)
        if not len(user_U):
            return state, {"trained_on": 0}
        unseen_gain_N = gains(plain, found, unseen_N, unseen_splits, known=False)[1]
        told = attack(gain_U, unseen_gain_N).auc
        if told <= 0.5 + spec.enough or passes == spec.passes:
            break
        level_U = np.quantile(unseen_gain_N, (np.argsort(np.argsort(gain_U)) + 0.5) / len(gain_U))
        wanted = dict(zip(user_U.tolist(), level_U.tolist(), strict=True))
        for asked_U, (batch, sizes, baseline_U) in with_rows(found, rng.permutation(user_U), (TRAIN,), known=False):
            sum_U, count_U = plain.losses(batch, sizes)
            loss_U = sum_U / count_U.clamp(min=1e-12)
            level = torch.from_numpy(baseline_U - [wanted[user] for user in asked_U.tolist()]).float()
            optimizer.zero_grad()
            (spec.weights(loss_U) * shortfall(loss_U, level)).mean().backward()
            for others in islice(kept, spec.batches):
                (spec.retain / spec.batches * plain.kept(others)).backward()
            optimizer.step()
        passes += 1
    return plain.state(), {"passes": passes, "auc_against_unseen": told, "unseen": len(unseen_gain_N), **spec.model_dump()}


def scores(
    config: RunConfig, data: Dataset, part: str, state: Mapping[str, Tensor], user_U: np.ndarray, splits: tuple[int, ...], *,
    known: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Users and their gains, for `recsys.continual.membership.attack`."""
    found: Probe = probe(config, data, part)
    return gains(Plain(JOBS[part](config, data, CPU), state), found, user_U, splits, known=known)


def _teacher(
    config: RunConfig, data: Dataset, part: str, state: Mapping[str, Tensor], spec: Distil
) -> Distillation | TaskDistillation:  # fmt: skip
    """The model as it was, but for the rows of those to forget."""
    if part == "ranker":
        is_class_T = torch.tensor([task not in config.regression for task in config.tasks])
        return TaskDistillation(spec, models.ranking_graph(config, data, dict(state)), data.context, is_class_T)
    whole = models.retrieval_graph(config, data, dict(state), score_dim=config.retriever.encoder.dim)
    old_C = torch.from_numpy(np.flatnonzero(data.train_count_I))
    return Distillation(spec, whole, config.retriever.similarity, old_C)


def _of_users(found: Probe, user_U: np.ndarray, together: int) -> Iterator[Batch]:
    """Batches of the training rows of so many users each; what is left over is left out."""
    for first in range(0, len(user_U) - together + 1, max(together, 1)):
        for _, (batch, _, _) in with_rows(found, user_U[first : first + together], (TRAIN,), known=False):
            yield batch


def _forever(job: Job) -> Iterator[Batch]:
    """The training batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from job.loader.epoch(epoch)
        epoch += 1
