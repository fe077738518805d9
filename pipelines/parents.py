"""What the parts of a config begin from: which artefacts, what these depend on, and which variants can share them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.workspace import Workspace, identity
from recsys.artefact import read_manifest
from recsys.config import RunConfig

if TYPE_CHECKING:
    from recsys.dataset import Dataset

IDS = "semantic_ids"  # no trained part, and made before the generator


@dataclass(frozen=True)
class Borrower(Workspace):
    """A workspace some of whose artefacts lie in other ones, `lenders`."""

    lenders: Mapping[str, Path] = field(default_factory=dict)

    @property
    def semantic_ids(self) -> Path:
        return self.lenders.get(IDS, self.root) / IDS

    def checkpoint(self, part: str) -> Path:
        return self.lenders.get(part, self.root) / part


def begins_from(config: RunConfig, part: str) -> tuple[str, ...]:
    """The artefacts that training a part reads beside the dataset, those that they begin from included, in order."""
    found: tuple[str, ...] = ()
    if part in (IDS, "generator") and config.generator is not None:
        reads = config.generator.ids.reads_retriever or (part == "generator" and config.generator.begin == "retriever")
        found = (*(("retriever",) if reads else ()), *((IDS,) if part == "generator" else ()))
    if part == "policy" and config.policy is not None:
        found = (*begins_from(config, config.policy.parent), config.policy.parent)
        if asks_retriever(config) and "retriever" not in found:
            found = ("retriever", *found)
    return found


def start_of(config: RunConfig, part: str) -> str | None:
    """The part whose parameters are the first ones of this part; None where these are random."""
    if part == "policy" and config.policy is not None:
        return config.policy.parent
    return (
        "retriever" if part == "generator" and config.generator is not None and config.generator.begin == "retriever" else None
    )


def settings(config: RunConfig, part: str) -> tuple[Any, ...]:
    """What a part is trained with beside data and seed: where two configs have the same, they train the same."""
    generator = config.generator
    own: dict[str, tuple[Any, ...]] = {
        "retriever": (config.max_history, config.retriever, config.serving.dim),  # the dim chooses the best epoch
        IDS: (generator and generator.ids,),
        "generator": (config.max_history, generator, config.generator_encoder, config.generator_tower),
        "policy": (config.max_history, config.policy, config.serving.dim),
        "ranker": (config.max_history, config.ranker, config.tasks),
    }
    return (*own[part], *(settings(config, each) for each in begins_from(config, part)))


def lenders(variants: Mapping[str, RunConfig], name: str, part: str) -> dict[str, str]:
    """By artefact that a part of a variant begins from: the first variant whose is the same."""
    mine = variants[name]
    return {
        each: next(other for other, config in variants.items() if settings(config, each) == settings(mine, each))
        for each in begins_from(mine, part)
    }


def made_from(config: RunConfig, part: str, workspace: Workspace, *, of_earlier_run: bool = False) -> dict[str, Any]:
    """What the identity of a part says of the artefacts of the workspace that it is trained with. `of_earlier_run`: it begins
    from its own like in another workspace, and not from a part of this one, which need not be there."""
    start = None if of_earlier_run else start_of(config, part)
    if part == "generator":
        return {"ids": _made(IDS, workspace), "parent": start and _made(start, workspace)}
    if part == "policy":
        assert start is not None, "a policy begins from its parent"
        scorer = {"scorer": _made("retriever", workspace)} if asks_retriever(config) else {}
        return {"parent": _made(start, workspace), "score_dim": config.serving.dim, **scorer}
    return {}


def trained_as(config: RunConfig, data: "Dataset", part: str, workspace: Workspace) -> dict[str, Any]:
    """The identity of the checkpoint that training the part would write now, but for the settings of `fit`."""
    start = start_of(config, part)
    return {
        **identity(config, data, part, **made_from(config, part, workspace)),
        "seed": config.seed, "start": start and _made(start, workspace),
    }  # fmt: skip


def asks_retriever(config: RunConfig) -> bool:
    """Whether a policy's rewards are the trained retriever's opinion."""
    return config.policy is not None and any(reward.asks_score for reward in config.policy.rewarded)


def _made(artefact: str, workspace: Workspace) -> str:
    """The fingerprint of what the workspace has."""
    folder = workspace.semantic_ids if artefact == IDS else workspace.checkpoint(artefact)
    return str(read_manifest(folder, IDS if artefact == IDS else "checkpoint")["fingerprint"])
