"""One training step: tables looked up once, the dense layers run on what was found, one backward pass through the tables.

The vectors found are cut from the tables' graph (`leaf`), so that the dense side may run in parts (gradient accumulation) or
several times (task balancing) while the tables, whose optimizer works inside their backward pass, are updated exactly once.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from recsys.balance.conflict import gradient_report
from recsys.balance.gradients import backward
from recsys.batch import Batch
from recsys.fit import Fit
from recsys.train.distributed import average_gradients, dense_parameters, sum_over_ranks
from recsys.train.job import Drawn, Job
from recsys.train.watch import Stopwatch

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FIRST_SCALE, GROW_AFTER = 2.0**14, 1000  # of the loss in float16: doubled after so many finite steps, halved at the first other


class NotFiniteError(Exception):
    """What of a step is not a finite number."""


class Stepper:
    """A placed model with its optimizers. `scale` is the factor of the loss in float16, 1 elsewhere."""

    def __init__(self, job: Job, spec: Fit, model: nn.Module, device: torch.device):
        self.job, self.spec, self.model, self.device = job, spec, model, device
        self.balance, self.helpers = job.balance.to(device), job.helpers.to(device)
        self.parameters = [*dense_parameters(model), *self.balance.parameters()]
        self.helper_parameters = list(self.helpers.parameters())
        decayed = {id(p) for p in dense_parameters(model) if p.ndim > 1}  # not biases, norms and weights of tasks
        groups = [
            {"params": [p for p in self.parameters if id(p) in decayed], "weight_decay": spec.weight_decay},
            {"params": [p for p in self.parameters if id(p) not in decayed], "weight_decay": 0.0},
        ]
        groups += [
            {"params": list(part.parameters()), "weight_decay": 0.0, "rate": getattr(part, "learning_rate", spec.learning_rate)}
            for part in self.helpers
        ]
        self.dense = torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.learning_rate, fused=device.type == "cuda")
        self.scale = FIRST_SCALE if spec.precision == "float16" else 1.0
        self.finite_steps = 0

    def __call__(self, batch: Batch, step: int, rate_share: float, generator: Generator, watch: Stopwatch) -> dict[str, Tensor]:
        """Update all parameters; return the terms of the loss. Raises NotFiniteError before any parameter has changed.

        Where gradients overflow in float16 nothing is updated, and the terms have no `gradient_norm`.
        """
        self._set_rates(rate_share)
        drawn = self.job.learner.draw(batch, generator)
        found = self.model.embeddings(drawn.ids)
        leaf = {name: vector.detach().requires_grad_() for name, vector in found.items()}
        watch.lap("lookup")
        terms = self._dense(leaf, batch, drawn, step, generator)
        watch.lap("dense")
        average_gradients([*self.parameters, *self.helper_parameters])
        finite = self._unscale([*self.parameters, *leaf.values()])
        _require_finite("loss", terms["loss"])
        if not finite:
            return terms
        norm = nn.utils.clip_grad_norm_(self.parameters, self.spec.clip_norm)
        _require_finite("norm of the gradient", norm)
        if self.helper_parameters:
            own_norm = nn.utils.clip_grad_norm_(self.helper_parameters, self.spec.clip_norm)
            _require_finite("norm of the helpers' gradient", own_norm)
        for vector in leaf.values():
            if vector.grad is not None:
                _require_finite("gradient of the embedding vectors", vector.grad.sum())
        self.dense.step()
        self.dense.zero_grad()
        watch.lap("optimizer")
        used = [name for name, vector in leaf.items() if vector.grad is not None]
        torch.autograd.backward([found[name] for name in used], [leaf[name].grad for name in used])
        watch.lap("tables")
        return terms | {"gradient_norm": norm}

    def _dense(self, leaf: dict[str, Tensor], batch: Batch, drawn: Drawn, step: int, generator: Generator) -> dict[str, Tensor]:
        """Fill the gradients of the dense parameters and of the vectors found; return the terms, summed over the parts."""
        learner, model = self.job.learner, self.model
        count_T = sum_over_ranks(learner.counts(batch)) / dist.get_world_size()
        sizes = part_sizes(batch.rows, self.spec.accumulate)
        parts = learner.parts(model, leaf, batch, sizes) if len(sizes) > 1 else [(leaf, batch)]
        shared, of_one_task = shared_and_own(model)
        total: dict[str, Tensor] = {}
        reported: dict[str, Tensor] = {}  # of the first part
        report = self.spec.report_gradients_every and step % self.spec.report_gradients_every == 0
        for found, rows in parts:
            extra: dict[str, Tensor] = {}
            own: list[Tensor | None] = []

            def losses(
                found: Any = found, rows: Batch = rows, extra: dict[str, Tensor] = extra, own: list[Tensor | None] = own
            ) -> Tensor:
                with self._precision():
                    outcome = learner.losses(model, found, rows, drawn, count_T, step)
                extra.update(outcome.terms)
                own[:] = [outcome.own]
                return outcome.loss_T.float() * self.scale

            if report and not reported and len(learner.weights) > 1:  # of the first part alone
                reported = gradient_report(losses, [*shared, *leaf.values()], list(learner.weights), scale=self.scale)
                reported |= model.gate_entropy() if hasattr(model, "gate_entropy") else {}
            terms = self.balance(losses, [*shared, *leaf.values()], of_one_task, generator)
            if own[0] is not None:
                backward(own[0], self.helper_parameters)  # of a part too small to learn from there is nothing
                total["own_loss"] = total.get("own_loss", 0.0) + own[0].detach()
            unscaled = {name: value / self.scale for name, value in terms.items() if name.startswith("loss")}
            share = rows.rows / max(1, batch.rows)
            for name, value in (terms | unscaled).items():
                total[name] = total.get(name, 0.0) + value.detach() * (1 if name.startswith("loss") else share)
            for name, value in extra.items():
                total[name] = total.get(name, 0.0) + value.detach() * share
        return total | reported

    def _precision(self) -> AbstractContextManager[Any]:
        half = HALF.get(self.spec.precision)
        return nullcontext() if half is None else torch.autocast(self.device.type, half)

    def _unscale(self, tensors: list[Tensor]) -> bool:
        """Take the factor of float16 off the gradients. False, and a smaller factor, where they overflowed: skip the step."""
        if self.spec.precision != "float16":
            return True
        gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.scale)
        overflow = sum_over_ranks(torch.stack([~torch.isfinite(g.sum()) for g in gradients]).any().float()).item() > 0
        self.finite_steps = 0 if overflow else self.finite_steps + 1
        if overflow:
            self.scale /= 2
            self.dense.zero_grad()
            if self.scale < 1:
                raise NotFiniteError("the gradient overflows float16 at every scale of the loss")
        elif self.finite_steps % GROW_AFTER == 0:
            self.scale *= 2
        return not overflow

    def _set_rates(self, share: float) -> None:
        for group in self.dense.param_groups:
            group["lr"] = group.get("rate", self.spec.learning_rate) * share
        fused = self.model.embeddings.fused_optimizer
        for group in fused.param_groups:
            group["lr"] = self.spec.embedding_learning_rate * share
        fused.step()  # hands the rate to the kernels; the update itself happens in backward


def shared_and_own(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Dense parameters that all tasks use, and those of single tasks, where the model tells them apart."""
    own = list(model.task_parameters()) if hasattr(model, "task_parameters") else []
    ids = {id(parameter) for parameter in own}
    return [parameter for parameter in dense_parameters(model) if id(parameter) not in ids], own


def part_sizes(rows: int, parts: int) -> list[int]:
    """`rows` in at most `parts` nearly equal numbers."""
    parts = max(1, min(parts, rows))
    return [rows // parts + (index < rows % parts) for index in range(parts)]


def _require_finite(what: str, value: Tensor) -> None:
    if not torch.isfinite(value):
        raise NotFiniteError(f"the {what} is {value.item()}")
