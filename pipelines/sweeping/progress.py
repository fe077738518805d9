"""What people see of a sweep: a line per trial, and a bar with how many are done, pruned and failed."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.sweeping.study import counted, number_of
from pipelines.sweeping.trial import Outcome

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipelines.sweeping.plan import Plan


class SweepProgress:
    """Without a console nothing is shown."""

    def __init__(self, console: Console | None, plan: "Plan", study: "Study"):
        self.console, self.plan, self.study = console, plan, study
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"), TimeElapsedColumn(),
            console=console, disable=console is None or not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(plan.name, total=plan.trials, counts="")

    def __enter__(self) -> "SweepProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            done = sum(tally(self.study.get_trials()).values())
            self._say(f"  stopped after {done} of {self.plan.trials} trials: the same command goes on from there")

    def begin(self, stopped: Sequence[int]) -> None:
        counts = tally(self.study.get_trials())
        if sum(counts.values()):
            self._say(f"  going on with {sum(counts.values())} of {self.plan.trials} trials done ({_said(counts)})")
        if stopped:
            self._say(f"  tried again, since they were stopped: {', '.join(f'trial {number}' for number in stopped)}")
        self._move(counts, [])

    def told(self, number: int, outcome: Outcome, ranked: "Sequence[FrozenTrial]") -> None:
        trials = self.study.get_trials(deepcopy=False)
        trial = next(each for each in counted(trials) if number_of(each) == number)
        what = short(trial.params, self.plan.space.stage)
        took = "" if outcome.seconds is None else f", {outcome.seconds:.1f} s"
        match outcome.state:
            case "complete":
                best = " [green]best so far[/]" if ranked and number_of(ranked[0]) == number else ""
                self._say(f"  trial {number}: {outcome.value:.4f} after {outcome.epochs} epochs{took}: {escape(what)}{best}")
            case "pruned":
                self._say(f"  trial {number}: pruned at {outcome.value:.4f}, epoch {outcome.epochs}{took}: {escape(what)}")
            case "failed":
                self._say(f"  trial {number}: [yellow]failed[/]: {escape(what)}: {escape(str(outcome.reason))}")
        self._move(tally(trials), ranked)

    def lost(self, number: int, how: str) -> None:
        self._say(f"  trial {number}: its worker {how}")

    def judging(self, seed: int, *, again: bool) -> None:
        what = f"training the best settings with seed {seed}" if again else "the best trial"
        self._say(f"  {what}, judged on the test split")

    def _move(self, counts: Mapping[str, int], ranked: "Sequence[FrozenTrial]") -> None:
        best = f", best {ranked[0].values[0]:.4f}" if ranked else ""
        self._bar.update(self._task, completed=sum(counts.values()), counts=_said(counts) + best)

    def _say(self, line: str) -> None:
        if self.console is not None:
            self.console.print(line, highlight=False, soft_wrap=True)


def tally(trials: "Sequence[FrozenTrial]") -> dict[str, int]:
    """How many trials ended how."""
    names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    states = [trial.state.name for trial in counted(list(trials))]
    return {name: states.count(state) for name, state in names.items()}


def short(values: Mapping[str, Any], stage: str) -> str:
    """Settings in a line, the stage's name left out."""
    return " ".join(f"{key.removeprefix(stage + '.')}={shown(value)}" for key, value in values.items())


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _said(counts: Mapping[str, int]) -> str:
    return f"{counts['complete']} complete, {counts['pruned']} pruned, {counts['failed']} failed"
