"""A trained model and rewards -> a checkpoint of its form: the policy or, where that is no better, the model again."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines import models
from pipelines.parents import asks_retriever, made_from
from pipelines.semantic_ids import semantic_ids
from pipelines.techniques import helpers
from pipelines.train import require_rows, validation
from pipelines.workspace import Workspace, check_lineage, identity, read_state
from recsys import evaluate
from recsys.balance.fixed import Fixed
from recsys.batch import Batch
from recsys.behaviours import known_at_once
from recsys.columns import PROPENSITY, TRAIN, VALID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.generate.ids import SemanticIds
from recsys.loader import Prefetched, rng_of
from recsys.policy.group import Group, Loss
from recsys.prompts import Histories, LoggedLoader, PromptLoader
from recsys.train.actor import Actor
from recsys.train.generator_actor import GeneratorActor
from recsys.train.job import Job, Progress, Start
from recsys.train.loop import fit
from recsys.train.policy_objective import PolicyLearner
from recsys.train.policy_validation import logged_value, standing
from recsys.train.proposing import Proposer, Rewarder, Scorer, served
from recsys.train.retriever_actor import RetrieverActor

EVALUATION_PROMPTS = 256  # of a batch
USERS = 8  # purpose of random numbers, beside those of the loaders


@dataclass(frozen=True)
class Kind:
    """What a policy needs to know of the kind of model that it is."""

    build: Callable[[], nn.Module]
    actor: Actor
    graph: Callable[[dict[str, Tensor]], Any]  # the serving form, on the device: it can be called, and has log_probs
    width: int  # of `Actor.summary`
    reads_time: bool
    judge: Callable[[Any], dict[str, float]]  # metrics of a serving form on the validation split, NDCG of all ks among them


def retriever_kind(config: RunConfig, data: Dataset, ids: SemanticIds | None, device: torch.device) -> Kind:
    part = config.retriever
    judged = _deciding(config, data)

    def judge(graph: Any) -> dict[str, float]:
        return _ranked(config, data, judged, graph) | evaluate.embedding_health(graph, judged, max_history=config.max_history)

    return Kind(
        build=lambda: models.retriever(config, data),
        actor=RetrieverActor(part.similarity, models.item_codes(config, data, device), config.serving.dim),
        graph=lambda state: models.retrieval_graph(config, data, state).to(device),
        width=part.encoder.dim, reads_time=part.encoder.reads_time, judge=judge,
    )  # fmt: skip


def generator_kind(config: RunConfig, data: Dataset, ids: SemanticIds | None, device: torch.device) -> Kind:
    assert ids is not None, "a generator has semantic ids"
    judged, encoder = _deciding(config, data), config.generator_encoder
    return Kind(
        build=lambda: models.generator(config, data, ids),
        actor=GeneratorActor(models.generator_item_codes(config, data, ids, device)),
        graph=lambda state: models.generation_graph(config, data, ids, state).to(device),
        width=encoder.dim, reads_time=encoder.reads_time, judge=lambda graph: _ranked(config, data, judged, graph),
    )  # fmt: skip


KINDS: dict[str, Callable[[RunConfig, Dataset, SemanticIds | None, torch.device], Kind]] = {
    "retriever": retriever_kind, "generator": generator_kind
}  # fmt: skip


def _ranked(config: RunConfig, data: Dataset, judged: evaluate.Judged, graph: Any) -> dict[str, float]:
    """Metrics of a serving form's lists."""
    k, seen = config.evaluation.ks[0], config.evaluation.filter_seen
    item_UK = evaluate.recommend(graph, judged, k=k, max_history=config.max_history, filter_seen=seen)
    return evaluate.retrieval_metrics(item_UK, judged, [k], data.num_items)[0]


def _deciding(config: RunConfig, data: Dataset) -> evaluate.Judged:
    """Whose validation events decide whether the policy is kept."""
    judged, learning_U = validation(config, data), _learning(config, data)
    if learning_U is None:
        return judged
    row_U = np.flatnonzero(~learning_U[judged.user_U])
    if not len(row_U):
        raise InputError(
            f"policy.deciding_share {config.policy.deciding_share if config.policy else 0:g} leaves none of the "
            f"{len(judged.user_U)} users with validation events to decide: raise it, or set prompts to training"
        )
    return judged.take(row_U)


def _learning(config: RunConfig, data: Dataset) -> np.ndarray | None:
    """Users whose validation events the policy learns from; None: it learns from the training split."""
    part = config.policy
    assert part is not None
    if part.prompts == "training":
        return None
    return rng_of(config.seed, USERS).random(data.num_users) >= part.deciding_share


def train_policy(
    config: RunConfig, data: Dataset, out: Path, *, workspace: Workspace, device: torch.device, progress: Progress,
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Go on from the parent of `workspace` by rewards and write the better of the two as a checkpoint; returns its manifest."""
    assert config.policy is not None, "a config without a policy has no such part"
    parent = config.policy.parent
    check_lineage(workspace, parent, data, config)
    start = read_state(workspace, parent, config)
    ids = semantic_ids(config, data, workspace) if parent == "generator" else None
    scorer = retriever_scorer(config, data, workspace, device) if asks_retriever(config) else None
    return fit(
        policy_job(config, data, device, start, scorer, ids), config.policy.fit, seed=config.seed, device=device, out=out,
        identity=identity(config, data, "policy", **made_from(config, "policy", workspace)), progress=progress,
        **options | {"start": start},
    )  # fmt: skip


def policy_job(
    config: RunConfig, data: Dataset, device: torch.device, start: Start, scorer: Scorer | None = None,
    ids: SemanticIds | None = None,
) -> Job:  # fmt: skip
    """The policy, its prompts, rewards and validation. `scorer`: of the reward `recommender`; `ids`: of a generator. Raises
    InputError where the data lacks something."""
    part = config.policy
    assert part is not None
    require_rows(part.fit.batch_size, "policy")
    kind = KINDS[part.parent](config, data, ids, device)
    loader, prompts, logged = _loaders(config, data, reads_time=kind.reads_time)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        objective: Callable[[Group], Loss] = part.objective.build(kind.width)
        multipliers = part.constrained.build([reward.kind for reward in part.rewarded]) if part.constrained else None
    rewarder = Rewarder(part.rewarded, part.tasks, scorer, multipliers)
    parent = kind.graph(start.state)
    learner = PolicyLearner(
        kind.actor, parent, objective, Proposer(part.proposes, part.proposals.count, part.objective.needs_target), rewarder
    )

    ndcg = f"NDCG@{config.evaluation.ks[0]}"

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        graph = kind.graph(state)
        found = kind.judge(graph)
        # an action of the log is worth what the log says; of what is proposed instead it says nothing
        of_proposals = rewarder if logged is None else Rewarder(())
        here = standing(graph, parent, of_proposals, _moved(prompts.first_of(VALID), device), part.proposals.count)
        if logged is not None:
            here = {"reward": logged_value(graph, parent, rewarder, _moved(logged.in_order(), device))} | here
        shown = {ndcg: found[ndcg]} | here  # side by side, and first
        return {f"valid/{name}": value for name, value in (shown | found).items()}

    return Job(
        name="policy", build=kind.build, learner=learner, balance=Fixed().build(learner.weights), loader=Prefetched(loader),
        validate=validate, main_metric="valid/reward" if part.judged_by == "reward" else f"valid/{ndcg}",
        helpers=helpers([objective, rewarder.multipliers]), guard=part.margin,
    )  # fmt: skip


def _loaders(
    config: RunConfig, data: Dataset, reads_time: bool
) -> tuple[PromptLoader | LoggedLoader, PromptLoader, LoggedLoader | None]:
    """Of training; the prompts of validation; and, for an objective that learns from the log, its rows of validation."""
    part, rules = config.policy, config.evaluation
    assert part is not None
    histories = Histories(data, config.max_history, rules.filter_seen, reads_time, rules.request_time)
    _require_tasks(part.tasks, data, known_at_once(data, part.tasks) if not part.objective.logged else part.tasks)
    share = {"rank": dist.get_rank(), "world_size": dist.get_world_size()}
    if not part.objective.logged:
        learning_U = _learning(config, data)
        split, others_U = (TRAIN, None) if learning_U is None else (VALID, ~learning_U)
        prompts = PromptLoader(histories, part.fit.batch_size, config.seed, part.tasks, split, learning_U, **share)
        if not prompts.num_batches(0):
            of_whom = (
                "" if learning_U is None else f" of those whom deciding_share {part.deciding_share:g} leaves to learn from"
            )
            mend = "change data.split" + (", or lower policy.deciding_share" if of_whom else "")
            raise InputError(
                f"{data.folder}: no user{of_whom} has a {part.prompts} event after another one, so there is nothing to propose "
                f"to: {mend}"
            )
        return prompts, PromptLoader(histories, EVALUATION_PROMPTS, config.seed, part.tasks, VALID, others_U), None
    make = functools.partial(LoggedLoader, replace(histories, seen=False), seed=config.seed, tasks=part.tasks)
    loader = make(part.fit.batch_size, propensity=part.reads_propensity, **share)
    _require_logged(loader, part.objective.kind)
    if part.leaves_out_unrewarded:
        loader = replace(loader, rewarded=True)
        if not len(loader.row_X):
            raise InputError(
                f"policy.objective {part.objective.kind} learns from rewards above 0, and no training row of {data.folder} has "
                f"one of {list(part.tasks)}: reward another task"
            )
    judged = make(EVALUATION_PROMPTS, propensity=config.data.events.propensity is not None, split=VALID)
    return loader, PromptLoader(histories, EVALUATION_PROMPTS, config.seed), judged


def _require_tasks(tasks: tuple[str, ...], data: Dataset, known: Any) -> None:
    for task in tasks:
        if task not in data.tasks:
            raise InputError(
                f"policy.rewards name the task {task!r}, which {data.folder} does not have: choose from {data.tasks}"
            )
        if task not in known:
            raise InputError(
                f"policy.rewards read the label {task!r} of the next event, which is not known when it happens: take a label "
                "without `within`, or an objective that learns from the log"
            )


def _require_logged(loader: LoggedLoader, kind: str) -> None:
    data, what = loader.histories.dataset, "a label of the rewarded task and a propensity" if loader.propensity else "a label"
    if not len(loader.row_X):
        raise InputError(
            f"policy.objective {kind} learns from rows with {what}, and {data.folder} has none: choose another one"
        )
    if loader.propensity:
        zero = int((np.asarray(data.examples[PROPENSITY][loader.row_X]) <= 0).sum())
        if zero:
            raise InputError(
                f"policy.objective {kind} divides by the propensity, and {zero} of {len(loader.row_X)} training rows have 0: "
                "what was shown had a chance above 0, so mend the log, or choose another behaviour"
            )


def retriever_scorer(config: RunConfig, data: Dataset, workspace: Workspace, device: torch.device) -> Scorer:
    """The trained retriever as the recommender that judges proposals: the log of its probability of each."""
    check_lineage(workspace, "retriever", data, config)
    graph = models.retrieval_graph(config, data, read_state(workspace, "retriever", config).state).to(device)

    def score(batch: Batch, item_BG: Tensor) -> Tensor:
        history_BL, length_B, time_BM = served(batch)
        return graph.log_probs(history_BL, length_B, item_BG, time_BM)[..., 0]

    return score


def _moved(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    return (batch.to(device) for batch in batches)
