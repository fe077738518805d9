"""Bottom representations of each task's own.

Shapes: B = examples or requests, C = candidates, L = history, D = width of a field, T = tasks, K = behaviours (all events, then
the positives of each task), A = attention heads, P = fields and interests together.
"""

from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.mixture import Towers
from recsys.models.ranker_inputs import RankerInputs, SharingSpec, masked_softmax

MAX_TASKS = 62  # bits of a behaviour mask


class DTRN(SharingSpec):
    """Deep task-specific bottom representation network, Liu et al. 2023, https://arxiv.org/abs/2308.05996: tasks differ already
    in how they read the history, once for each behaviour (clicks, buys, ...), and in which fields they heed.

    A hypernetwork turns a task and a behaviour into scales and shifts around one shared attention of the candidate to the
    history; a squeeze-and-excitation gate per task then weighs the fields. Differs from the paper: scale and shift stand for
    its generated layers, of which no code is public, and start at one and zero, so that tasks begin with the same interests;
    the gate has biases; a tower of one hidden layer per task follows instead of another multi-task model.
    """

    kind: Literal["dtrn"] = "dtrn"
    heads: int = Field(2, ge=1)
    condition: int = Field(8, ge=1, description="width of a task's and of a behaviour's vector")
    generator: int = Field(16, ge=1, description="hidden width of the hypernetwork")
    reduction: int = Field(2, ge=1, description="how many times narrower the gate's hidden layer is than the number of fields")
    hidden: int = Field(64, ge=1, description="width of each task's tower")
    reads_behaviours: ClassVar[bool] = True

    def check(self, tasks: Sequence[str], regression: Collection[str] = ()) -> None:
        if len(tasks) > MAX_TASKS:
            raise ValueError(f"sharing dtrn takes at most {MAX_TASKS} tasks, not {len(tasks)}: name fewer in ranker.tasks")

    def build(self, fields: int, dim: int, tasks: Sequence[str]) -> nn.Module:
        self.check(tasks)
        return _DTRN(self, fields, dim, len(tasks))


class _DTRN(nn.Module):
    def __init__(self, spec: DTRN, fields: int, dim: int, num_tasks: int):
        super().__init__()
        parts = fields + num_tasks + 1
        self.interest = TaskInterest(spec, dim, num_tasks)
        self.refine = TaskRefinement(num_tasks, parts, spec.reduction)
        self.hidden = TaskLinear(num_tasks, parts * dim, spec.hidden)
        self.towers = Towers(num_tasks, spec.hidden)

    def task_parameters(self) -> list[nn.Parameter]:
        own = nn.ModuleList([self.refine, self.hidden, self.towers])
        return [self.interest.task_TE, *own.parameters()]

    def forward(self, inputs: RankerInputs) -> Tensor:
        """Return logit_BCT."""
        interest_BCTKD = self.interest(inputs)
        field_BCTFD = inputs.field_BCFD[:, :, None].expand(-1, -1, interest_BCTKD.shape[2], -1, -1)
        refined_BCTPD = self.refine(torch.cat([field_BCTFD, interest_BCTKD], dim=3))
        return self.towers(self.hidden(refined_BCTPD.flatten(-2)).relu())


class TaskInterest(nn.Module):
    """What each task sees in each behaviour of the history, given the candidate."""

    def __init__(self, spec: DTRN, dim: int, num_tasks: int):
        super().__init__()
        self.heads, self.dim = spec.heads, dim
        self.task_TE = nn.Parameter(torch.randn(num_tasks, spec.condition))
        self.behaviour_KE = nn.Parameter(torch.randn(num_tasks + 1, spec.condition))
        self.generator = nn.Sequential(nn.Linear(2 * spec.condition, spec.generator), nn.ReLU())
        self.generated = nn.Linear(spec.generator, 4 * dim)
        nn.init.zeros_(self.generated.weight)
        nn.init.zeros_(self.generated.bias)
        self.norm_item, self.norm_event, self.norm_feed = (nn.LayerNorm(dim) for _ in range(3))
        self.query = nn.Linear(dim, spec.heads * dim)
        self.out = nn.Linear(spec.heads * dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.register_buffer("bit_T", 1 << torch.arange(num_tasks), persistent=False)

    def forward(self, inputs: RankerInputs) -> Tensor:
        """Return interest_BCTKD."""
        scale_TKD, shift_TKD, feed_scale_TKD, feed_shift_TKD = self._modulation()
        pooled_BCTKAD = self._attend(inputs, scale_TKD[..., None, :])
        pooled_BCTKAD = scale_TKD[..., None, :] * pooled_BCTKAD + shift_TKD[..., None, :]
        mixed_BCTKD = self.out(pooled_BCTKAD.flatten(-2))
        return mixed_BCTKD + self.feed(feed_scale_TKD * self.norm_feed(mixed_BCTKD) + feed_shift_TKD)

    def _attend(self, inputs: RankerInputs, scale_TK1D: Tensor) -> Tensor:
        """Attention to scale * event + shift, pooled before scale and shift. The scale can act on the query instead, and a
        shift adds the same to the scores of all events, so the history is read once and not per task and behaviour."""
        event_BLD = self.norm_event(inputs.history_BLD)
        query_BCAD = self.query(self.norm_item(inputs.item_BCD)).unflatten(-1, (self.heads, self.dim)) * self.dim**-0.5
        query_BCTKAD = query_BCAD[:, :, None, None] * scale_TK1D
        axes = query_BCTKAD.shape[1:5]
        score_BNL = torch.matmul(query_BCTKAD.flatten(1, 4), event_BLD.transpose(1, 2))
        inside_BKL = self._inside(inputs)
        weight_BCTKAL = masked_softmax(score_BNL.unflatten(1, axes), inside_BKL[:, None, None, :, None])
        return torch.matmul(weight_BCTKAL.flatten(1, 4), event_BLD).unflatten(1, axes)

    def _inside(self, inputs: RankerInputs) -> Tensor:
        """inside_BKL: the events of each behaviour."""
        assert inputs.behaviour_BL is not None, "the loader was not asked for behaviours"
        positive_BTL = (inputs.behaviour_BL[:, None] & self.bit_T[:, None]) != 0
        inside_B1L = inputs.inside_BL[:, None]
        return torch.cat([inside_B1L, positive_BTL & inside_B1L], dim=1)

    def _modulation(self) -> list[Tensor]:
        """Scale and shift before the attention, then before the feed-forward layer, each TKD."""
        tasks, behaviours = len(self.task_TE), len(self.behaviour_KE)
        task_TKE = self.task_TE[:, None].expand(-1, behaviours, -1)
        behaviour_TKE = self.behaviour_KE[None].expand(tasks, -1, -1)
        generated_TKG = self.generated(self.generator(torch.cat([task_TKE, behaviour_TKE], dim=-1)))
        scale, shift, feed_scale, feed_shift = generated_TKG.chunk(4, dim=-1)
        return [1 + scale, shift, 1 + feed_scale, feed_shift]


class TaskRefinement(nn.Module):
    """A gate in (0, 1) per task and field from all fields' means: squeeze and excitation, Hu et al. 2018,
    https://arxiv.org/abs/1709.01507."""

    def __init__(self, num_tasks: int, parts: int, reduction: int):
        super().__init__()
        self.squeeze = TaskLinear(num_tasks, parts, -(-parts // reduction))
        self.excite = TaskLinear(num_tasks, -(-parts // reduction), parts)

    def forward(self, part_BCTPD: Tensor) -> Tensor:
        """Return every field times its gate."""
        gate_BCTP = self.excite(self.squeeze(part_BCTPD.mean(-1)).relu()).sigmoid()
        return gate_BCTP[..., None] * part_BCTPD


class TaskLinear(nn.Module):
    """A linear layer of each task's own."""

    def __init__(self, num_tasks: int, width_in: int, width_out: int):
        super().__init__()
        bound = width_in**-0.5
        self.weight_TIO = nn.Parameter(torch.empty(num_tasks, width_in, width_out).uniform_(-bound, bound))
        self.bias_TO = nn.Parameter(torch.empty(num_tasks, width_out).uniform_(-bound, bound))

    def forward(self, x_BCTI: Tensor) -> Tensor:
        """Return y_BCTO."""
        return torch.einsum("bcti,tio->bcto", x_BCTI, self.weight_TIO) + self.bias_TO
