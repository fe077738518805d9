"""Every combination of the ranker's parts, and inputs for them. Shapes as in recsys/models/ranker_inputs.py."""

import itertools
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from recsys.models import History, Interaction, Sharing
from recsys.models.esmm import ESMM
from recsys.models.ranker import RankerDesign
from recsys.models.ranker_inputs import RankerInputs

DIM, FIELDS, LENGTH = 8, 5, 6
TASKS = ("click", "like", "buy")


def members(union: Any) -> list[Any]:
    """The specs of a union, each with its defaults."""
    annotated = get_args(union)
    return [member() for member in (get_args(annotated[0]) if annotated else (union,))]


SHARINGS = [*members(Sharing), ESMM(given={"buy": "like", "like": "click"})]
HISTORIES = members(History)
INTERACTIONS = [None, *members(Interaction)]


def designs(**settings: Any) -> list[RankerDesign]:
    """All combinations."""
    parts = itertools.product(HISTORIES, INTERACTIONS, SHARINGS)
    return [replace(RankerDesign(*three, dim=DIM, tasks=TASKS), **settings) for three in parts]


def name(spec: Any) -> str:
    if isinstance(spec, RankerDesign):
        return "-".join(name(part) for part in (spec.history, spec.interaction, spec.sharing))
    return "none" if spec is None else spec.kind + ("_given" if getattr(spec, "given", None) else "")


def ranker_inputs(batch: int = 4, candidates: int = 3, *, seed: int = 0) -> RankerInputs:
    """The first history is empty, the second full."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    length_B = torch.randint(1, LENGTH + 1, (batch,), generator=generator)
    length_B[:2] = torch.tensor([0, LENGTH])[:batch]
    inside_BL = torch.arange(LENGTH) < length_B[:, None]
    history_BLD = normal(batch, LENGTH, DIM) * inside_BL[..., None]
    behaviour_BL = torch.randint(0, 2 ** len(TASKS), (batch, LENGTH), generator=generator)
    fields = normal(batch, candidates, FIELDS, DIM)
    return RankerInputs(fields, normal(batch, candidates, DIM), history_BLD, inside_BL, behaviour_BL)


def padded_with_junk(inputs: RankerInputs) -> RankerInputs:
    """The same with other values where padding is, and two more columns of it."""

    def junk(value: Tensor, fill: float) -> Tensor:
        inside = inputs.inside_BL if value.ndim == 2 else inputs.inside_BL[..., None]
        value = torch.where(inside, value, torch.full_like(value, fill))
        return torch.cat([value, torch.full_like(value[:, :2], fill)], dim=1)

    assert inputs.behaviour_BL is not None
    wider_BL = torch.cat([inputs.inside_BL, torch.zeros_like(inputs.inside_BL[:, :2])], dim=1)
    return replace(
        inputs, history_BLD=junk(inputs.history_BLD, 9.0), behaviour_BL=junk(inputs.behaviour_BL, 7), inside_BL=wider_BL
    )
