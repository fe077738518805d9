"""What the loop trains: a model, its batches, its losses and its validation.

Shapes: T = tasks (1 for a retriever), B = sequences or examples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Generator, Tensor, nn

from recsys.batch import Batch, Ids
from recsys.loader import Loader

Found = Mapping[str, Tensor]


class Start(NamedTuple):
    """Parameters to begin from, and which checkpoint's they are. From a model of another kind some may be missing."""

    checkpoint: str
    state: dict[str, Tensor]
    of_another_kind: bool = False


class BadWeightsError(Exception):
    """What is wrong with the weights that a technique gave the examples."""


class Outcome(NamedTuple):
    """What a batch comes to: each task's sum of losses, further terms to log, and what the learner's helpers minimise."""

    loss_T: Tensor
    terms: dict[str, Tensor]
    own: Tensor | None = None


class Drawn(NamedTuple):
    """A batch made ready: the ids to look up, and what else was drawn at random for it."""

    ids: dict[str, Ids]
    extra: Any = None


class Learner(Protocol):
    """How a batch becomes losses. No method keeps anything from one batch to the next."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Tasks and their weights."""
        ...

    def draw(self, batch: Batch, generator: Generator) -> Drawn:
        """The generator's numbers depend on seed and step alone and are the same on every process."""
        ...

    def counts(self, batch: Batch) -> Tensor:
        """count_T, the total weight of each task's examples, by which its sum of losses is divided."""
        ...

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        """The next `sizes[i]` rows each, with the vectors they read."""
        ...

    def losses(self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int) -> Outcome:
        """loss_T are sums over the rows divided by `count_T`, and `own` adds up over the parts of a batch as they do."""
        ...


def _as_it_is(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state


@dataclass(frozen=True)
class Job:
    """Higher validation is better."""

    name: str
    build: Callable[[], nn.Module]  # called once the random numbers are seeded; has `.embeddings`
    learner: Learner
    balance: nn.Module
    loader: Loader
    validate: Callable[[dict[str, Tensor]], dict[str, float]]  # from whole parameters, as export does; NaN: does not exist
    main_metric: str
    helpers: nn.ModuleList = field(default_factory=nn.ModuleList)  # of the learner: trained by `Outcome.own`, in checkpoints
    rates: Callable[[float], float] | None = None  # share of the learning rates by how much is done; None: as `fit` says
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] = _as_it_is  # what is validated and kept of whole parameters
    guard: float | None = None  # where set, the model that training begins from stays unless it gets above it by more than this


class Progress(Protocol):
    """Where the loop reports to; both calls must return quickly."""

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None: ...
    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None: ...
