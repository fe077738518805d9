"""The training loop: one pass a step, early stopping, checkpoints that a killed run resumes from."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from recsys.artefact import fingerprint, is_there, read_manifest, write_artefact
from recsys.batch import Batch
from recsys.errors import InputError
from recsys.fit import Fit
from recsys.train.checkpoint import FUSED, fused_state, load_fused_state, load_model_state, model_state
from recsys.train.distributed import every_rank, from_first_rank, mean_over_ranks, shard

MODEL_FILE = "model.safetensors"
RESUME_FILE = "resume.safetensors"
HISTORY_FILE = "history.json"


class Loader(Protocol):
    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]: ...
    def num_batches(self, epoch: int) -> int: ...


@dataclass(frozen=True)
class Job:
    """What is trained: a model, its batches, its loss and its validation. Higher validation is better."""

    name: str
    build: Callable[[], nn.Module]  # called once the random numbers are seeded
    loader: Loader
    objective: Callable[[nn.Module, Batch, int, Generator], tuple[Tensor, dict[str, Tensor]]]  # model, batch, step, randomness
    validate: Callable[[dict[str, Tensor]], dict[str, float]]  # from whole parameters, as export does; NaN: does not exist
    main_metric: str


class Progress(Protocol):
    """Where the loop reports to; both calls must return quickly."""

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None: ...
    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None: ...


@dataclass
class State:
    """Where training stands; everything but tensors."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    stale: int = 0
    loss_sum: float = 0.0  # over the steps since the last validation
    loss_steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    job: Job, spec: Fit, *, seed: int, device: torch.device, out: Path, identity: dict[str, Any], progress: Progress,
    stop_after_steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train, write the best model as checkpoint artefact `out`, return its manifest.

    `identity` (config and data fingerprint) is stored; from a resume folder beside `out` with the same identity the run goes
    on, to the result it would have had undisturbed. `stop_after_steps` ends early as a kill would, leaving the resume folder.
    Raises InputError when the loss or the gradient is not finite.
    """
    generator = Generator()
    _seed_all(generator, seed, step=0)
    model = shard(job.build(), device, embedding_lr=spec.embedding_learning_rate)
    dense = torch.optim.AdamW(
        [p for name, p in model.named_parameters() if ".collection." not in name],
        lr=spec.learning_rate, weight_decay=spec.weight_decay,
    )  # fmt: skip
    settings = spec.model_dump(mode="json", exclude={"checkpoint_minutes"})
    trainer = _Trainer(job, spec, model, dense, generator, device, out, {**identity, "fit": settings, "seed": seed})
    trainer.resume()
    return trainer.run(progress, stop_after_steps)


class _Trainer:
    def __init__(
        self, job: Job, spec: Fit, model: Any, dense: torch.optim.Optimizer, generator: Generator, device: torch.device,
        out: Path, identity: dict[str, Any],
    ):  # fmt: skip
        self.job, self.spec, self.model, self.dense, self.generator = job, spec, model, dense, generator
        self.device, self.out, self.identity = device, out, identity
        self.resume_folder = out.with_name(out.name + ".resume")
        self.state = State()
        self.best_state: dict[str, Tensor] = {}
        self.saved = time.monotonic()

    def run(self, progress: Progress, stop_after_steps: int | None) -> dict[str, Any]:
        state = self.state
        while not self._finished():
            total_steps, began = self._total_steps(), time.monotonic()
            for batch in self.job.loader.epoch(state.epoch, state.batch):
                metrics = self._step(batch.to(self.device), total_steps)
                state.batch, state.step = state.batch + 1, state.step + 1
                state.loss_sum, state.loss_steps = state.loss_sum + metrics["loss"], state.loss_steps + 1
                progress.step(
                    self.job.name, step=state.step, total_steps=total_steps, predictions=batch.num_predictions, metrics=metrics
                )
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
        return self._finish()

    def _step(self, batch: Batch, total_steps: int) -> dict[str, float]:
        share = self._rate_share(total_steps)
        for group in self.dense.param_groups:
            group["lr"] = self.spec.learning_rate * share
        for group in self.model.fused_optimizer.param_groups:
            group["lr"] = self.spec.embedding_learning_rate * share
        self.model.fused_optimizer.step()  # hands the rate to the kernels; the update itself happens in backward
        self.dense.zero_grad()
        loss, terms = self.job.objective(self.model, batch, self.state.step, self.generator)
        self._require_finite("loss", loss)
        loss.backward()
        norm = nn.utils.clip_grad_norm_([p for group in self.dense.param_groups for p in group["params"]], self.spec.clip_norm)
        self._require_finite("norm of the gradient", norm)
        self.dense.step()
        return {name: value.item() for name, value in terms.items()} | {
            "loss": loss.item(), "gradient_norm": norm.item(), "rate_share": share,
        }  # fmt: skip

    def _require_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            step, name = self.state.step + 1, self.job.name
            raise InputError(f"{name}: the {what} is {value.item()} at step {step}: lower the learning rates of {name}.fit")

    def _rate_share(self, total_steps: int) -> float:
        """Linear warm-up, then cosine decay to `final_share`, over steps or over `max_minutes`, whichever ends first."""
        spec, state = self.spec, self.state
        warm = min(1.0, (state.step + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
        done = state.step / max(1, total_steps)
        if spec.max_minutes is not None:
            done = max(done, state.seconds / (60 * spec.max_minutes))
        return warm * (spec.final_share + (1 - spec.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def _tick(self, began: float) -> float:
        """Add the time since `began`; return the seconds since the last checkpoint. All processes get the same numbers, since a
        checkpoint that only some of them write would never end."""
        now = time.monotonic()
        clock = torch.tensor([self.state.seconds + now - began, now - self.saved], dtype=torch.float64, device=self.device)
        self.state.seconds, since_saved = mean_over_ranks(clock).tolist()
        return since_saved

    def _total_steps(self) -> int:
        return self.spec.epochs * max(1, self.job.loader.num_batches(self.state.epoch))

    def _finished(self) -> bool:
        return self.state.epoch >= self.spec.epochs or self.state.stale >= self.spec.patience or self._out_of_time()

    def _out_of_time(self) -> bool:
        return self.spec.max_minutes is not None and self.state.seconds >= 60 * self.spec.max_minutes

    def _validate(self, progress: Progress) -> None:
        state, whole = self.state, model_state(self.model)
        self.model.eval()
        metrics = from_first_rank(self.job.validate(whole))
        metrics = {name: number for name, number in metrics.items() if not math.isnan(number)}
        self.model.train()
        value = metrics.get(self.job.main_metric)
        better = not self.best_state or (value is not None and (state.best is None or value > state.best))
        if better:
            state.best, state.stale, self.best_state = value, 0, whole
        else:
            state.stale += 1
        loss = state.loss_sum / max(1, state.loss_steps)
        state.loss_sum, state.loss_steps = 0.0, 0
        entry = {"epoch": state.epoch, "step": state.step, "seconds": round(state.seconds, 1), "loss": loss}
        state.history.append(entry | metrics)
        progress.validated(self.job.name, step=state.step, epoch=state.epoch, metrics=metrics, best=better)
        self.save()

    def save(self) -> None:
        """Write everything needed to go on; atomic, so a kill here costs nothing."""
        tensors = {f"model/{name}": t for name, t in model_state(self.model).items()}
        tensors |= {FUSED + name: t for name, t in fused_state(self.model).items()}
        tensors |= {f"best/{name}": t for name, t in self.best_state.items()}
        for index, parts in self.dense.state_dict()["state"].items():
            tensors |= {f"dense/{index}/{name}": t.cpu() for name, t in parts.items()}
        for rank, states in enumerate(every_rank(_random_states(self.generator))):
            tensors |= {f"random/{rank}/{name}": t for name, t in states.items()}
        if dist.get_rank() == 0:
            fields = {"identity": self.identity, "state": asdict(self.state), "world_size": dist.get_world_size()}
            with write_artefact(self.resume_folder, "checkpoint", **fields) as (folder, _):
                save_file({name: t.contiguous() for name, t in tensors.items()}, folder / RESUME_FILE)
        dist.barrier()
        self.saved = time.monotonic()

    def resume(self) -> None:
        """Go on from the resume folder, if it is of this very run; the next save replaces one of another config or data."""
        if not from_first_rank(is_there(self.resume_folder) if dist.get_rank() == 0 else False):
            return
        try:
            manifest = read_manifest(self.resume_folder, "checkpoint", verify=True)
        except InputError as error:
            raise InputError(f"{error}, after removing {self.resume_folder} to begin anew") from error
        if fingerprint(manifest["identity"]) != fingerprint(self.identity):
            return
        tensors = load_file(self.resume_folder / RESUME_FILE)
        load_model_state(self.model, _below(tensors, "model/"))
        load_fused_state(self.model, _below(tensors, FUSED))
        self.best_state = _below(tensors, "best/")
        self._load_dense(_below(tensors, "dense/"))
        self.state = State(**manifest["state"])
        if manifest["world_size"] == dist.get_world_size():
            _set_random_states(self.generator, _below(tensors, f"random/{dist.get_rank()}/"))
        else:  # every process had read `batch` batches: go on where all of them together had come to
            self.state.batch = self.state.batch * manifest["world_size"] // dist.get_world_size()
            _seed_all(self.generator, self.identity["seed"], step=self.state.step)

    def _load_dense(self, tensors: dict[str, Tensor]) -> None:
        parts: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, name = key.split("/", 1)
            parts.setdefault(int(index), {})[name] = tensor
        self.dense.load_state_dict({"state": parts, "param_groups": self.dense.state_dict()["param_groups"]})

    def _finish(self) -> dict[str, Any]:
        manifest: dict[str, Any] = {}
        if dist.get_rank() == 0:
            state = self.state
            with write_artefact(
                self.out, "checkpoint", identity=self.identity, best=state.best, main_metric=self.job.main_metric,
                epochs=state.epoch, steps=state.step, seconds=round(state.seconds, 1),
            ) as (folder, manifest):  # fmt: skip
                save_file({name: t.contiguous() for name, t in self.best_state.items()}, folder / MODEL_FILE)
                (folder / HISTORY_FILE).write_text(json.dumps(state.history, indent=1) + "\n")
            _remove(self.resume_folder)
        dist.barrier()
        return manifest


def _seed_all(generator: Generator, seed: int, *, step: int) -> None:
    """Own random numbers for every process: blocks of one table must not begin with the same rows."""
    sequence = np.random.SeedSequence([seed, dist.get_rank(), step])
    first, second = (int(number) for number in sequence.generate_state(2, np.uint64) >> 1)
    torch.manual_seed(first)
    generator.manual_seed(second)


def _random_states(generator: Generator) -> dict[str, Tensor]:
    states = {"torch": torch.get_rng_state(), "generator": generator.get_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_states(generator: Generator, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    generator.set_state(states["generator"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
