"""Groups to try objectives on, and a bandit whose best policy is known.

Shapes: B = prompts, G = candidates, T = tokens of a candidate, D = width, C = contexts, I = items.
"""

from typing import Any, get_args

import torch
from torch import Generator, Tensor, nn

from recsys.policy import PolicyObjective, Reward
from recsys.policy.group import Group, Loss

WIDTH = 6


def members(union: Any) -> dict[str, Any]:
    """The specs of a union by name."""
    return {spec.__name__: spec for spec in get_args(get_args(union)[0])}


OBJECTIVES = members(PolicyObjective)
REWARDS = members(Reward)


def built(kind: Any, **settings: Any) -> Any:
    torch.manual_seed(3)
    return kind(**settings).build(WIDTH)


def a_group(kind: Any, prompts: int = 6, dtype: torch.dtype = torch.float32, seed: int = 1, **changes: Any) -> Group:
    """Five candidates, of logged actions one. The last two of prompt 0 do not exist. All is asked for a gradient."""
    generator = Generator().manual_seed(seed)
    candidates = 1 if kind.logged else 5

    def numbers(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)

    exists_BG = torch.ones(prompts, candidates, dtype=torch.bool)
    if candidates > 1:
        exists_BG[0, 3:] = False
    shape = (prompts, candidates, 3)
    log_prob_BGT, parent_BGT = (-numbers(*shape) * exists_BG[..., None] - 0.01 for _ in range(2))
    parts = {
        "log_prob_BGT": (log_prob_BGT * exists_BG[..., None]).requires_grad_(),
        "parent_BGT": (parent_BGT * exists_BG[..., None]).requires_grad_(),
        "reward_BG": (numbers(prompts, candidates) * exists_BG).requires_grad_(),
        "exists_BG": exists_BG,
        "target_B": torch.arange(prompts) % min(candidates, 3),
        "propensity_B": (0.1 + 0.8 * numbers(prompts)).requires_grad_(),
        "state_BD": numbers(prompts, WIDTH).requires_grad_(),
        "item_BG": torch.arange(candidates).expand(prompts, -1) + 10,
    }
    return Group(**{**parts, **changes})


def gradient(loss: Loss, leaf: Tensor) -> Tensor:
    """Of the sum of losses; zeros where none gets there."""
    if not loss.loss_B.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(loss.loss_B.sum(), [leaf], retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


class TwoTokens(nn.Module):
    """A policy over items of two codes: four first ones, two second ones under each."""

    def __init__(self, contexts: int, seed: int = 0):
        super().__init__()
        generator = Generator().manual_seed(seed)
        self.first_C4 = nn.Parameter(torch.randn(contexts, 4, generator=generator))
        self.second_C42 = nn.Parameter(torch.randn(contexts, 4, 2, generator=generator))

    def forward(self) -> Tensor:
        """log_prob_CIT of all eight items."""
        first_C42 = self.first_C4.log_softmax(1)[..., None].expand(-1, -1, 2)
        return torch.stack([first_C42, self.second_C42.log_softmax(2)], 3).flatten(1, 2)
