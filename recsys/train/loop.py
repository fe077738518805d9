"""The training loop: epochs, early stopping, checkpoints that a killed run resumes from."""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Generator, Tensor

from recsys.artefact import write_artefact
from recsys.batch import Batch
from recsys.errors import InputError
from recsys.fit import Fit
from recsys.models.managed_collision import resharded
from recsys.train.checkpoint import (
    FUSED,
    Checkpoints,
    below,
    fused_state,
    model_state,
)
from recsys.train.distributed import from_first_rank, mean_over_ranks, place
from recsys.train.grow import grow, load_training_state, training_state
from recsys.train.guard import takes_over, verdict
from recsys.train.job import BadWeightsError, Job, Progress, Start
from recsys.train.managed import load_pending_ids, pending_ids
from recsys.train.schedule import done_share, rate_share
from recsys.train.step import NotFiniteError, Stepper
from recsys.train.watch import Stopwatch, peak_memory_gib, trace

MODEL_FILE = "model.safetensors"
HISTORY_FILE = "history.json"
OPTIMIZER_FILE = "optimizer.safetensors"  # what the tables' optimizer keeps of each row, as training ended
BATCH_FILE = "batch.safetensors"
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass
class State:
    """Where training stands; everything but tensors. Random numbers follow from the seed, the step and the rank alone."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    stale: int = 0
    loss_sum: float = 0.0  # over the steps since the last validation
    loss_steps: int = 0
    scale: float = 1.0
    finite_steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    job: Job, spec: Fit, *, seed: int, device: torch.device, out: Path, identity: dict[str, Any], progress: Progress,
    stop_after_steps: int | None = None, profile: Path | None = None, start: Start | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train, write the best model as checkpoint artefact `out`, return its manifest.

    `identity` (config and data fingerprint) is stored; from checkpoints beside `out` with the same identity the run goes
    on, to the result it would have had undisturbed. `stop_after_steps` ends early as a kill would, leaving them. `profile`
    names a file for a trace of some steps. `start`: parameters to begin from, else they are drawn at random. The manifest
    of a job with a guard says under `guard` what the model it began from reached, and which of the two was written.
    Raises InputError when the loss or the gradient is not finite, or memory runs out.
    """
    trainer = _Trainer(job, spec, seed, device, out, identity, start)
    trainer.resume()
    torch.use_deterministic_algorithms(spec.deterministic)
    try:
        with trace(profile) as profiler:
            return trainer.run(progress, stop_after_steps, profiler)
    except RuntimeError as error:
        if not any(words in str(error) for words in NO_MEMORY):
            raise
        raise InputError(
            f"{job.name}: out of memory at step {trainer.state.step + 1}: lower {job.name}.fit.batch_tokens or batch_size, "
            "or raise accumulate, which gives the same result in less memory"
        ) from error
    finally:
        torch.use_deterministic_algorithms(False)


class _Trainer:
    def __init__(
        self, job: Job, spec: Fit, seed: int, device: torch.device, out: Path, identity: dict[str, Any],
        start: Start | None,
    ):  # fmt: skip
        self.job, self.spec, self.seed, self.device, self.out = job, spec, seed, device, out
        settings = spec.model_dump(mode="json", exclude={"checkpoint_minutes", "checkpoints", "report_gradients_every"})
        self.identity = {**identity, "fit": settings, "seed": seed, "start": start and start.checkpoint}
        torch.manual_seed(number(seed, 0))
        built = job.build()
        torch.manual_seed(number(seed, 1, dist.get_rank()))  # blocks of one table must not begin with the same rows
        self.model = place(built, device, optimizer=spec.embedding_optimizer, learning_rate=spec.embedding_learning_rate)
        self.stepper = Stepper(job, spec, self.model, device)
        if start is not None:
            fresh = (
                training_state(self.model) if any(name.startswith(FUSED) for name in start.state) else model_state(self.model)
            )
            load_training_state(self.model, grow(fresh | start.state if start.of_another_kind else start.state, fresh))
        self.checkpoints = Checkpoints(out.with_name(out.name + ".resume"), spec.checkpoints)
        self.state = State(scale=self.stepper.scale)
        self.best_state: dict[str, Tensor] = {}
        self.saved = time.monotonic()
        self.watch = Stopwatch(device)
        self.spent: Counter[str] = Counter()  # seconds by part of a step, of this process alone

    def run(self, progress: Progress, stop_after_steps: int | None, profiler: torch.profiler.profile | None) -> dict[str, Any]:
        state = self.state
        if self.job.guard is not None and not state.history:
            self._validate(progress)
        while not self._finished():
            total_steps, began = self._total_steps(), time.monotonic()
            for batch in self._batches():
                metrics = self._step(batch, total_steps)
                state.batch, state.step = state.batch + 1, state.step + 1
                state.loss_sum, state.loss_steps = state.loss_sum + metrics["loss"], state.loss_steps + 1
                predictions = batch.num_predictions * dist.get_world_size()
                progress.step(self.job.name, step=state.step, total_steps=total_steps, predictions=predictions, metrics=metrics)
                if profiler is not None:
                    profiler.step()
                stop = stop_after_steps is not None and state.step >= stop_after_steps
                if self._tick(began) > 60 * self.spec.checkpoint_minutes or stop:
                    self.save()
                if stop:
                    return {}
                if self._out_of_time():
                    break
                began = time.monotonic()
            state.epoch, state.batch = state.epoch + 1, 0
            if state.epoch % self.spec.evaluate_every == 0 or self._finished():
                self._validate(progress)
        if state.loss_steps:  # time was up, and the run was killed before its last validation
            state.epoch, state.batch = state.epoch + 1, 0
            self._validate(progress)
        return self._finish()

    def _batches(self) -> Iterator[Batch]:
        for batch in self.job.loader.epoch(self.state.epoch, self.state.batch):
            moved = batch.to(self.device)
            self.watch.lap("data")
            yield moved
            self.watch.lap("report")

    def _step(self, batch: Batch, total_steps: int) -> dict[str, float]:
        state = self.state
        torch.manual_seed(number(self.seed, 2, dist.get_rank(), state.step))  # dropout
        generator = Generator().manual_seed(number(self.seed, 3, state.step))  # negatives, the same on every process
        share = self._rate_share(total_steps)
        try:
            terms = self.stepper(batch, state.step, share, generator, self.watch)
        except NotFiniteError as error:
            raise self._failed(str(error), f"lower the learning rates of {self.job.name}.fit", batch) from None
        except BadWeightsError as error:
            raise self._failed(str(error), f"change its settings under {self.job.name}", batch) from None
        state.scale, state.finite_steps = self.stepper.scale, self.stepper.finite_steps
        metrics = {name: float(value) for name, value in terms.items()} | {"rate_share": share}
        self.watch.lap("tables")
        seconds = self.watch.read()
        self.spent.update(seconds)
        return metrics | {f"seconds/{name}": value for name, value in seconds.items()}

    def _rate_share(self, total_steps: int) -> float:
        step, seconds, rates = self.state.step, self.state.seconds, self.job.rates
        if rates is not None:
            return rates(done_share(self.spec, step=step, total_steps=total_steps, seconds=seconds))
        return rate_share(self.spec, step=step, total_steps=total_steps, seconds=seconds)

    def _failed(self, what: str, mend: str, batch: Batch) -> InputError:
        """The batch is kept, so that it can be looked at."""
        rank, name = dist.get_rank(), self.job.name
        folder = self.out.with_name(self.out.name + ".failed") / f"step-{self.state.step + 1}-rank-{rank}"
        with write_artefact(folder, "batch", reason=what, identity=self.identity) as (path, _):
            save_file(batch.tensors(), path / BATCH_FILE)
        return InputError(f"{name}: {what} at step {self.state.step + 1}: {mend}, or look at the batch in {folder}")

    def _tick(self, began: float) -> float:
        """Add the time since `began`; return the seconds since the last checkpoint. All processes get the same numbers, since a
        checkpoint that only some of them write would never end."""
        now = time.monotonic()
        clock = torch.tensor([self.state.seconds + now - began, now - self.saved], dtype=torch.float64, device=self.device)
        self.state.seconds, since_saved = mean_over_ranks(clock).tolist()
        return since_saved

    def _total_steps(self) -> int:
        """As if every epoch had as many steps as the present one."""
        epoch = self.state.epoch
        return self.state.step - self.state.batch + (self.spec.epochs - epoch) * max(1, self.job.loader.num_batches(epoch))

    def _finished(self) -> bool:
        return self.state.epoch >= self.spec.epochs or self.state.stale >= self.spec.patience or self._out_of_time()

    def _out_of_time(self) -> bool:
        return self.spec.max_minutes is not None and self.state.seconds >= 60 * self.spec.max_minutes

    def _validate(self, progress: Progress) -> None:
        state, whole = self.state, self.job.finish(model_state(self.model))
        self.model.eval()
        metrics = from_first_rank(self.job.validate(whole) if dist.get_rank() == 0 else {})
        metrics = {name: number for name, number in metrics.items() if not math.isnan(number)}
        self.model.train()
        value = metrics.get(self.job.main_metric)
        better = not self.best_state or (value is not None and (state.best is None or value > state.best))
        if self.job.guard is not None:
            better = takes_over(value, state.best, state.history, self.job)
        if better or (self.spec.keep == "last" and self.job.guard is None):
            state.best, state.stale, self.best_state = value, 0, whole
        else:
            state.stale += 1
        loss = {"loss": state.loss_sum / state.loss_steps} if state.loss_steps else {}  # none of a model that is begun from
        state.loss_sum, state.loss_steps = 0.0, 0
        entry = {
            "epoch": state.epoch, "step": state.step, "seconds": round(state.seconds, 1), **loss,
            "peak_memory_gib": round(peak_memory_gib(self.device), 3),
        }  # fmt: skip
        state.history.append(entry | metrics)
        progress.validated(self.job.name, step=state.step, epoch=state.epoch, metrics=metrics, best=better)
        self.save()
        self.watch.lap("report")

    def save(self) -> None:
        """Write everything needed to go on; atomic, so a kill here costs nothing."""
        tensors = {f"model/{name}": t for name, t in model_state(self.model).items()}
        tensors |= {FUSED + name: t for name, t in fused_state(self.model).items()}
        tensors |= {f"best/{name}": t for name, t in self.best_state.items()}
        tensors |= {f"pending/{name}": t for name, t in pending_ids(self.model).items()}
        for part in ("balance", "helpers"):
            tensors |= {f"{part}/{name}": t.cpu() for name, t in getattr(self.stepper, part).state_dict().items()}
        for index, parts in self.stepper.dense.state_dict()["state"].items():
            tensors |= {f"dense/{index}/{name}": t.cpu() for name, t in parts.items()}
        if dist.get_rank() == 0:
            self.checkpoints.write(tensors, step=self.state.step, identity=self.identity, state=asdict(self.state))
        dist.barrier()
        self.saved = time.monotonic()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint of this very run; the next save replaces those of another config or data."""
        step = from_first_rank(self.checkpoints.newest(self.identity) if dist.get_rank() == 0 else None)
        if step is None:
            return
        manifest, tensors = self.checkpoints.read(step)
        saved = below(tensors, "model/") | {name: t for name, t in tensors.items() if name.startswith(FUSED)}
        load_training_state(self.model, resharded(saved, dist.get_world_size()))
        load_pending_ids(self.model, below(tensors, "pending/"))
        for part in ("balance", "helpers"):
            getattr(self.stepper, part).load_state_dict(below(tensors, f"{part}/"))
        self.best_state = below(tensors, "best/")
        self._load_dense(below(tensors, "dense/"))
        self.state = State(**manifest["state"])
        self.stepper.scale, self.stepper.finite_steps = self.state.scale, self.state.finite_steps

    def _load_dense(self, tensors: dict[str, Tensor]) -> None:
        parts: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, name = key.split("/", 1)
            parts.setdefault(int(index), {})[name] = tensor
        dense = self.stepper.dense
        dense.load_state_dict({"state": parts, "param_groups": dense.state_dict()["param_groups"]})

    def _finish(self) -> dict[str, Any]:
        manifest: dict[str, Any] = {}
        fused = fused_state(self.model)
        if dist.get_rank() == 0:
            state = self.state
            with write_artefact(
                self.out, "checkpoint", identity=self.identity, best=state.best, main_metric=self.job.main_metric,
                epochs=state.epoch, steps=state.step, seconds=round(state.seconds, 1),
                peak_memory_gib=round(peak_memory_gib(self.device), 3),
                time_share={name: round(value / self.spent.total(), 4) for name, value in self.spent.items()},
                **({} if self.job.guard is None else {"guard": verdict(state.history, self.job)}),
            ) as (folder, manifest):  # fmt: skip
                save_file({name: t.contiguous() for name, t in self.best_state.items()}, folder / MODEL_FILE)
                save_file({FUSED + name: t.contiguous() for name, t in fused.items()}, folder / OPTIMIZER_FILE)
                (folder / HISTORY_FILE).write_text(json.dumps(state.history, indent=1) + "\n")
            self.checkpoints.remove()
        dist.barrier()
        return manifest


def number(*purpose: int) -> int:
    """A seed that is another one for every seed, purpose, rank and step."""
    return int(np.random.SeedSequence(purpose).generate_state(1, np.uint64)[0] >> 1)
