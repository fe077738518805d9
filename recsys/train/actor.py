"""A model as a policy over items: what policy objectives ask of a retriever and of a generator alike.

Shapes: B = prompts, L = history, E = excluded items, G = candidates, T = tokens of a candidate, D = width, I = rows of the
item table.
"""

from typing import Any, Protocol

from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.train.job import Found


class Actor(Protocol):
    """How a model in training acts. Nothing is kept from one batch to the next."""

    def look_ups(self, batch: Batch) -> dict[str, Ids]:
        """What the model's tables are asked for these prompts."""
        ...

    def of_part(self, found: Found, batch: Batch, rows: Batch) -> Found:
        """The vectors that `look_ups` of some rows of a batch would give, from those of the whole."""
        ...

    def state(self, model: nn.Module, found: Found, batch: Batch) -> Any:
        """What the model makes of the prompts, with gradient."""
        ...

    def summary(self, state: Any) -> Tensor:
        """state_BD, one vector of each prompt."""
        ...

    def best(self, model: nn.Module, state: Any, exclude_BE: Tensor, count: int) -> Tensor:
        """item_BG of the `count` most probable items that are not excluded, best first; 0 where there are no more."""
        ...

    def sample(self, model: nn.Module, state: Any, exclude_BE: Tensor, count: int, generator: Generator) -> Tensor:
        """item_BG drawn from the policy, each by itself, so that an item may come again; 0 where nothing is left."""
        ...

    def log_probs(self, model: nn.Module, state: Any, item_BG: Tensor) -> Tensor:
        """log_prob_BGT of items; the reserved ids below FIRST_ID have 0."""
        ...


class Frozen(Protocol):
    """A policy that no longer learns: a serving graph."""

    def log_probs(self, history_BL: Tensor, length_B: Tensor, item_BG: Tensor, time_BM: Tensor | None = None) -> Tensor:
        """log_prob_BGT, as of `Actor.log_probs`."""
        ...
