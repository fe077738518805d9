"""What people and MLflow see of long work: a bar for each part of a build; of training a bar, and a line per validation."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from recsys.metrics.embedding_health import collapse
from recsys.track import Run

LOGGED_STEPS = 1000  # about as many points per curve as a screen can show


class BuildProgress:
    """Reports of `recsys.data.build`, a bar for each part. Without a console, or where it is no terminal, nothing is shown."""

    def __init__(self, console: Console | None):
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn(),
            console=console, disable=console is None or not console.is_terminal, transient=True,
        )  # fmt: skip
        self._tasks = {"": self._bar.add_task("prepare", total=None, count="")}  # moves while no part has anything to say

    def __enter__(self) -> "BuildProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, count="")
        self._bar.update(self._tasks[name], completed=done, total=total, count=f"{done}/{total}")


class TrainingProgress:
    """Reports of `recsys.train.loop`. Without a run nothing is logged; without a console nothing is shown."""

    def __init__(self, console: Console | None, run: Run | None):
        self.run = run
        self.curves = run  # where values of steps and validations go; the run of a stage, where there is one
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:,.0f} examples/s"),
            TimeElapsedColumn(), TimeRemainingColumn(),
            console=console, disable=console is None or not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._job = ""
        self._seen = self._began = 0.0
        self.speed: dict[str, float] = {}  # examples per second of each job, validation included
        self._highest: dict[str, float] = {}  # RankMe of each job

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        if job != self._job:
            self._job, self._seen, self._began = job, 0.0, time.perf_counter()
            if step > 1 and self.console is not None:
                self.console.print(f"  {job}: going on from step {step - 1} of a run that was stopped", highlight=False)
            self._task = self._bar.add_task(job, total=total_steps, loss=0.0, speed=0.0)
        self._seen += predictions
        self.speed[job] = self._seen / max(1e-9, time.perf_counter() - self._began)
        if self._task is not None:
            self._bar.update(self._task, completed=step, total=total_steps, loss=metrics["loss"], speed=self.speed[job])
        if self.curves is not None and step % max(1, total_steps // LOGGED_STEPS) == 0:
            self.curves.metrics({f"{job}/{name}": value for name, value in metrics.items()}, step)

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None:
        finite = {name: value for name, value in metrics.items() if value == value}
        if self.curves is not None:
            self.curves.metrics({f"{job}/{name}": value for name, value in finite.items()}, step)
        if self.console is not None:
            shown = "  ".join(f"{name.removeprefix('valid/')} {value:.4f}" for name, value in list(finite.items())[:4])
            speed = self._seen / max(1e-9, time.perf_counter() - self._began)
            mark = " [green]best so far[/]" if best else ""
            what = (
                f"epoch {epoch}: validation {shown}  ({speed:,.0f} examples/s){mark}"
                if epoch
                else f"parent: validation {shown}"
            )
            self.console.print(f"  {job} {what}", highlight=False)
        self._watch_collapse(job, finite)

    def _watch_collapse(self, job: str, metrics: dict[str, float]) -> None:
        """Say it, and tag the run, where the vectors have collapsed. What a stopped run had before does not count."""
        effective, share = metrics.get("valid/rankme"), metrics.get("valid/rankme_share")
        if effective is None or share is None:
            return
        highest = self._highest[job] = max(effective, self._highest.get(job, 0.0))
        alarm = collapse(effective, effective / share if share else float("inf"), highest)
        if alarm is None:
            return
        if self.run is not None:
            self.run.tag(f"{job}/alarm", alarm)
        if self.console is not None:
            self.console.print(
                f"  [bold yellow]alarm:[/] {job}: {alarm}: lower {job}.fit.embedding_learning_rate, or choose another loss",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
