"""The trials that a sweep's workers get: each one a run, the models of the best ones kept."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.ablation.run import Run, Tracking, Trained
from pipelines.parents import Borrower, begins_from, made_from, settings
from pipelines.sweeping.plan import Plan
from pipelines.sweeping.progress import SweepProgress
from pipelines.sweeping.study import Trials, best_first, number_of, open_study, pruner
from pipelines.sweeping.trial import Outcome, Task
from recsys import track
from recsys.artefact import fingerprint
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.track.tags import PARENT_TAG

if TYPE_CHECKING:
    from optuna.trial import Trial

EXPERIMENT = "recsys-sweep"
FAILURES_IN_A_ROW = 5
RUN_ID = "run_id"


@dataclass
class Search:
    """The source of the workers' trials, each of them a run below the sweep's."""

    config: RunConfig
    data: Dataset
    folder: Path
    plan: Plan
    lenders: Mapping[str, Path]
    trials: Trials
    run: track.Run
    shown: SweepProgress
    point: dict[str, Any] | None  # where the config itself stands in the space
    uri: str | None
    _given: "dict[int, Trial]" = field(default_factory=dict)
    _failed: list[str] = field(default_factory=list)  # in a row

    @classmethod
    def open(
        cls, config: RunConfig, data: Dataset, folder: Path, plan: Plan, lenders: Mapping[str, Path],
        console: Console | None, uri: str | None,
    ) -> "Search":  # fmt: skip
        stage, plain = plan.space.stage, config.model_dump(mode="json")
        facts = {
            "stage": stage, "space": fingerprint(plan.space.document()), "config": fingerprint(plain),
            "data": data.manifest["data_fingerprint"],
            "model to begin from": fingerprint(made_from(config, stage, Borrower(folder, lenders))),
        }  # fmt: skip
        study = open_study(folder, facts, pruner(plan.pruning, plan.space.epochs(config)))
        trials = Trials(study, plan.space, seed=config.seed, wanted=plan.trials)
        point = plan.space.point_of(config, plan.load)
        if point is not None:
            trials.begin_with(point)
        stopped = trials.try_stopped_again()
        run = cls._run(study, config, facts["data"], plan, uri)
        shown = SweepProgress(console, plan, study)
        shown.begin(stopped)
        return cls(config, data, folder, plan, lenders, trials, run, shown, point, uri)

    @staticmethod
    def _run(study: Any, config: RunConfig, data: str, plan: Plan, uri: str | None) -> track.Run:
        """The run of the whole sweep, opened again where an earlier process had begun it in the same store."""
        if RUN_ID in study.user_attrs:
            with suppress(InputError):  # the store has lost it, or is another one
                return track.resume_run(study.user_attrs[RUN_ID], uri=uri)
        tags = {"config": config.name, "sweep": plan.name, "stage": plan.space.stage}
        run = track.start_run(
            EXPERIMENT, f"{config.name} {plan.name}", data=data, uri=uri, tags=tags,
            params={"space": plan.space.document(), "prune": plan.pruning} | config.model_dump(mode="json"),
        )  # fmt: skip
        study.set_user_attr(RUN_ID, run.run_id)
        return run

    def next(self) -> Task | None:
        while (trial := self.trials.ask()) is not None:
            number = number_of(trial)
            try:
                config = self.plan.at(trial.params)
            except InputError as error:  # values that do not go together
                self._settle(trial, Outcome("failed", reason=str(error)))
                continue
            task = Task(
                number, self.plan.space.stage, config, self._folder(number), self._of_all(config),
                self._child(trial), self.uri,
            )  # fmt: skip
            self._given[number] = trial
            return task
        return None

    def stops(self, task: Task, epoch: int, value: float) -> bool:
        return self.trials.stops(self._given[task.number], epoch, value)

    def tell(self, task: Task, outcome: Outcome) -> None:
        self._settle(self._given.pop(task.number), outcome)

    def lost(self, task: Task, how: str) -> None:
        outcome = self.trials.lost(self._given.pop(task.number), how)
        self.shown.lost(task.number, how)
        if outcome is not None:
            self._after(task.number, outcome)

    def first_failure(self) -> str:
        failed = [trial for trial in self.trials.study.get_trials() if trial.user_attrs.get("reason")]
        return str(min(failed, key=number_of).user_attrs["reason"])

    def judge(self, device: Any) -> dict[int, Trained]:
        """The best trial on the test split, and the same settings with further seeds."""
        best = best_first(self.trials.study.get_trials())[0]
        config, stage = self.plan.at(best.params), self.plan.space.stage
        first = self._folder(number_of(best))
        lenders = {part: self._of_all(config).get(part, first) for part in begins_from(config, stage)}
        judged = {}
        for seed in range(config.seed, config.seed + self.plan.seeds + 1):
            self.shown.judging(seed, again=seed != config.seed)
            folder = first if seed == config.seed else self.folder / "seeds" / first.name / f"seed-{seed}"
            seeded = config.model_copy(update={"seed": seed})
            run = Run(stage, "best", seeded, self.data, Borrower(folder, lenders), device)
            judged[seed] = run.finished() or run.train(Tracking(None, None, self.uri, self.plan.name))
        return judged

    def _settle(self, trial: "Trial", outcome: Outcome) -> None:
        self.trials.tell(trial, outcome)
        self._after(number_of(trial), outcome)

    def _after(self, number: int, outcome: Outcome) -> None:
        """Show it, keep the models of the best, and stop where nothing works."""
        ranked = best_first(self.trials.study.get_trials(deepcopy=False))
        self.shown.told(number, outcome, ranked)
        kept = {number_of(trial) for trial in ranked[: self.plan.keep]}
        gone = [number_of(trial) for trial in ranked[self.plan.keep :]] + ([number] if outcome.state == "pruned" else [])
        for each in set(gone) - kept:
            shutil.rmtree(self._folder(each), ignore_errors=True)
        if ranked:
            self.run.metric("best/valid", ranked[0].values[0], step=number)
        self._failed = [*self._failed, outcome.reason or ""] if outcome.state == "failed" else []
        if len(self._failed) >= FAILURES_IN_A_ROW:
            raise InputError(f"{len(self._failed)} trials in a row failed, the first of them: {self._failed[0]}")

    def _folder(self, number: int) -> Path:
        return self.folder / "trials" / f"trial-{number:04}"

    def _of_all(self, config: RunConfig) -> dict[str, Path]:
        """What a trial need not make anew."""
        same = (part for part in self.lenders if settings(config, part) == settings(self.config, part))
        return {part: self.lenders[part] for part in same}

    def _child(self, trial: "Trial") -> str:
        if RUN_ID in trial.user_attrs:  # it is tried again
            with suppress(InputError):
                return track.get_run(trial.user_attrs[RUN_ID], uri=self.uri).id
        number = number_of(trial)
        tags = {
            "config": self.config.name, "sweep": self.plan.name, "stage": self.plan.space.stage, "trial": str(number),
            PARENT_TAG: self.run.run_id,
        }  # fmt: skip
        child = track.start_run(
            EXPERIMENT, f"trial {number}", data=self.data.manifest["data_fingerprint"], uri=self.uri,
            params=self.plan.space.values(trial.params), tags=tags,
        )  # fmt: skip
        trial.set_user_attr(RUN_ID, child.hand_over())
        return str(trial.user_attrs[RUN_ID])
