"""The training loop: one pass a step, early stopping, checkpoints that a killed run resumes from."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from recsys.artefact import fingerprint, read_manifest, write_artefact
from recsys.batch import Batch
from recsys.errors import InputError
from recsys.train.checkpoint import FUSED, fused_state, load_fused_state, load_model_state, model_state
from recsys.train.distributed import mean_over_ranks, shard
from recsys.fit import Fit

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
    model: nn.Module
    loader: Loader
    objective: Callable[[nn.Module, Batch, Generator], tuple[Tensor, dict[str, Tensor]]]
    validate: Callable[[dict[str, Tensor]], dict[str, float]]  # from whole parameters, as export does
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
    best: float = -math.inf
    stale: int = 0
    loss_sum: float = 0.0  # over the steps since the last validation
    loss_steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    job: Job, spec: Fit, *, seed: int, device: torch.device, out: Path, identity: dict[str, Any], progress: Progress,
    stop_after_steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train, write the best model as checkpoint artefact `out`, return its manifest.

    `identity` (config and data fingerprint) is stored; a resume folder beside `out` with the same identity is gone on from, to the
    result the undisturbed run would have had. `stop_after_steps` ends early as a kill would, leaving the resume folder.
    Raises InputError when the loss is not finite.
    """
    torch.manual_seed(seed)
    model = shard(job.model, device, embedding_lr=spec.embedding_learning_rate)
    dense = torch.optim.AdamW(
        [p for name, p in model.named_parameters() if ".collection." not in name],
        lr=spec.learning_rate, weight_decay=spec.weight_decay,
    )  # fmt: skip
    generator = Generator().manual_seed(seed + 7919 * dist.get_rank())
    trainer = _Trainer(job, spec, model, dense, generator, out, {**identity, "fit": spec.model_dump(mode="json"), "seed": seed})
    trainer.resume()
    return trainer.run(progress, stop_after_steps)


class _Trainer:
    def __init__(
        self, job: Job, spec: Fit, model: Any, dense: torch.optim.Optimizer, generator: Generator, out: Path, identity: dict[str, Any]
    ):
        self.job, self.spec, self.model, self.dense, self.generator = job, spec, model, dense, generator
        self.out, self.identity = out, identity
        self.resume_folder = out.with_name(out.name + ".resume")
        self.state, self.best_state = State(), {}

    def run(self, progress: Progress, stop_after_steps: int | None) -> dict[str, Any]:
        state, saved = self.state, time.monotonic()
        while not self._finished():
            total_steps = self._total_steps()
            for batch in self.job.loader.epoch(state.epoch, state.batch):
                began = time.perf_counter()
                metrics = self._step(batch, total_steps)
                state.batch, state.step = state.batch + 1, state.step + 1
                state.loss_sum, state.loss_steps = state.loss_sum + metrics["loss"], state.loss_steps + 1
                state.seconds += time.perf_counter() - began
                progress.step(
                    self.job.name, step=state.step, total_steps=total_steps, predictions=batch.num_predictions, metrics=metrics
                )
                if time.monotonic() - saved > 60 * self.spec.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
                if stop_after_steps is not None and state.step >= stop_after_steps:
                    self.save()
                    return {}
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
        loss, terms = self.job.objective(self.model, batch, self.generator)
        if not torch.isfinite(loss):
            raise InputError(f"{self.job.name}: the loss is {loss.item()} at step {self.state.step}: lower the learning rates")
        loss.backward()
        norm = nn.utils.clip_grad_norm_([p for group in self.dense.param_groups for p in group["params"]], self.spec.clip_norm)
        self.dense.step()
        return {name: value.item() for name, value in terms.items()} | {
            "loss": loss.item(), "gradient_norm": norm.item(), "rate_share": share,
        }  # fmt: skip

    def _rate_share(self, total_steps: int) -> float:
        """Linear warm-up, then cosine decay to `final_share`, over steps or over `max_minutes`, whichever ends first."""
        spec, state = self.spec, self.state
        warm = min(1.0, (state.step + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
        done = state.step / max(1, total_steps)
        if spec.max_minutes is not None:
            done = max(done, self._agreed_seconds() / (60 * spec.max_minutes))
        return warm * (spec.final_share + (1 - spec.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def _agreed_seconds(self) -> float:
        return mean_over_ranks(torch.tensor(self.state.seconds)).item()

    def _total_steps(self) -> int:
        return self.spec.epochs * max(1, self.job.loader.num_batches(self.state.epoch))

    def _finished(self) -> bool:
        out_of_time = self.spec.max_minutes is not None and self._agreed_seconds() >= 60 * self.spec.max_minutes
        return self.state.epoch >= self.spec.epochs or self.state.stale >= self.spec.patience or out_of_time

    def _validate(self, progress: Progress) -> None:
        state, whole = self.state, model_state(self.model)
        self.model.eval()
        metrics = self.job.validate(whole)
        self.model.train()
        value = metrics[self.job.main_metric]
        better = value > state.best or not self.best_state
        if better:
            state.best, state.stale, self.best_state = value, 0, whole
        else:
            state.stale += 1
        loss = state.loss_sum / max(1, state.loss_steps)
        state.loss_sum, state.loss_steps = 0.0, 0
        state.history.append({"epoch": state.epoch, "step": state.step, "seconds": round(state.seconds, 1), "loss": loss, **metrics})
        progress.validated(self.job.name, step=state.step, epoch=state.epoch, metrics=metrics, best=better)
        self.save()

    def save(self) -> None:
        """Write everything needed to go on; atomic, so a kill here costs nothing."""
        tensors = {f"model/{name}": t for name, t in model_state(self.model).items()}
        tensors |= {FUSED + name: t for name, t in fused_state(self.model).items()}
        tensors |= {f"best/{name}": t for name, t in self.best_state.items()}
        for index, parts in self.dense.state_dict()["state"].items():
            tensors |= {f"dense/{index}/{name}": t.cpu() for name, t in parts.items()}
        tensors |= {"random/torch": torch.get_rng_state(), "random/generator": self.generator.get_state()}
        if dist.get_rank() == 0:
            with write_artefact(self.resume_folder, "checkpoint", identity=self.identity, state=asdict(self.state)) as (folder, _):
                save_file({name: t.contiguous() for name, t in tensors.items()}, folder / RESUME_FILE)
        dist.barrier()

    def resume(self) -> None:
        if not self.resume_folder.exists():
            return
        manifest = read_manifest(self.resume_folder, "checkpoint")
        if fingerprint(manifest["identity"]) != fingerprint(self.identity):
            return  # of another config or data: begin anew, the next save replaces it
        tensors = load_file(self.resume_folder / RESUME_FILE)
        load_model_state(self.model, _below(tensors, "model/"))
        load_fused_state(self.model, _below(tensors, FUSED))
        self.best_state = _below(tensors, "best/")
        self._load_dense(_below(tensors, "dense/"))
        torch.set_rng_state(tensors["random/torch"])
        self.generator.set_state(tensors["random/generator"])
        self.state = State(**manifest["state"])

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


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
