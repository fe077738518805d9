"""The memory of a sweep: an Optuna study in a file, that only the process of the command writes.

Workers ask this process for settings and tell it their values, so that no trial is lost, or counted twice, whenever one of them
is killed; SQLite takes care of the process itself. Trials have the numbers of Optuna; one that is tried again keeps its own.
"""

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipelines.sweeping.space import Point, Space
from pipelines.sweeping.trial import Outcome
from recsys.errors import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, Trial

Pruning = Literal["median", "hyperband", "none"]
STUDY_FILE, LOCK_FILE, WORKERS_FILE = "optuna.db", "lock", "workers.lock"
AGAIN, COPY, NUMBER, ATTEMPTS, REASON = "again_of", "same_as", "number", "attempts", "reason"
MAX_ATTEMPTS = 3  # of a trial whose worker is killed, mostly for want of memory
LONGEST_WAIT_S = 60  # for SQLite to let another process, such as a dashboard, finish


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Refuse a second command with the same folder, and wait for the workers of one that was killed to notice it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock, workers = (folder / LOCK_FILE).open("w"), (folder / WORKERS_FILE).open("w")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another folder by --workspace") from error
    with lock, workers:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is at the sweep in {folder}: wait for it, or choose another --name") from None
        fcntl.flock(workers, fcntl.LOCK_EX)
        fcntl.flock(workers, fcntl.LOCK_UN)
        yield


def forget(folder: Path) -> None:
    """Remove all of a sweep but its locks."""
    for path in folder.iterdir():
        if path.name not in (LOCK_FILE, WORKERS_FILE):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def open_study(folder: Path, facts: Mapping[str, Any], pruner: "BasePruner") -> "Study":
    """The study of the folder, new or gone on with. `facts` must be those that it was begun with."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url, wait = f"sqlite:///{(folder / STUDY_FILE).absolute()}", {"connect_args": {"timeout": LONGEST_WAIT_S}}
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=wait)
        study = optuna.create_study(
            study_name=folder.name, storage=storage, direction="maximize", load_if_exists=True, pruner=pruner
        )  # fmt: skip
    except (SQLAlchemyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder / STUDY_FILE} cannot be opened ({reason}): choose another --name, or --anew") from error
    before = study.user_attrs
    for name, value in facts.items():
        if before.get(name, value) != value:
            raise InputError(
                f"the sweep in {folder} was begun with another {name}: choose another --name, or --anew to forget its trials"
            )
        if name not in before:
            study.set_user_attr(name, value)
    return study


def pruner(kind: str, epochs: int) -> "BasePruner":
    """Median: worse at an epoch than half of the others were, from a quarter of the epochs on and beside 4 others at least.
    Hyperband: successive halving, for several first epochs. Li et al. 2018, https://arxiv.org/abs/1603.06560."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    match kind:
        case "median":
            return MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4))
        case "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=max(1, epochs))
        case "none":
            return NopPruner()
    raise AssertionError(kind)


class Trials:
    """What is tried next, and what came of it.

    Settings are drawn by the tree-structured Parzen estimator in its multivariate form (Bergstra et al. 2011; Watanabe 2023,
    https://arxiv.org/abs/2304.11127), for which trials that still run count as bad ones. Its random numbers follow from the
    seed and the count of the trials, so that a sweep that was stopped goes on as it would have.
    """

    def __init__(self, study: "Study", space: Space, *, seed: int, wanted: int):
        self.study, self.space, self.seed, self.wanted = study, space, seed, wanted
        self.distributions = space.distributions()
        self._running: dict[int, Trial] = {}  # by Optuna's number

    def begin_with(self, point: Point) -> None:
        """The first trial of a new study."""
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(dict(point))

    def try_stopped_again(self) -> list[int]:
        """Trials that ran when an earlier process was stopped wait to be tried again. Return their numbers."""
        from optuna.trial import TrialState

        stopped = self.study.get_trials(states=(TrialState.RUNNING,))
        for trial in stopped:
            self._again(trial, trial.user_attrs.get(ATTEMPTS, 1))
        return [number_of(trial) for trial in stopped]

    def ask(self) -> "Trial | None":
        """The next trial; None where all are given out, or the space has no other point."""
        for _ in range(COPIES):
            trials = self.study.get_trials(deepcopy=False)
            if sum(trial.state.name != "WAITING" for trial in counted(trials)) >= self.wanted:
                return None
            self.study.sampler = self._sampler(trials)
            trial = self.study.ask(self.distributions)
            others = [each for each in counted(trials) if each.state.name != "WAITING" and each.number != trial.number]
            earlier = next((each for each in others if each.params == trial.params), None)
            if earlier is None or AGAIN in trial.user_attrs:
                self._running[trial.number] = trial
                return trial
            self._give_up(trial, earlier)
            if not self._draw_unseen(trials):
                return None
        return None

    def stops(self, trial: "Trial", epoch: int, value: float) -> bool:
        """Note a validation; whether the trial is to be given up."""
        if epoch not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(value, epoch)
        return bool(trial.should_prune())

    def tell(self, trial: "Trial", outcome: Outcome) -> None:
        from optuna.trial import TrialState

        for name in ("epochs", "seconds", REASON):
            trial.set_user_attr(name, getattr(outcome, name))
        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[outcome.state]
        self.study.tell(trial, outcome.value if outcome.state == "complete" else None, state=state)
        self._running.pop(trial.number, None)

    def lost(self, trial: "Trial", how: str) -> Outcome | None:
        """The worker is gone: the trial waits to be tried again, or has been lost too often, which is its outcome."""
        attempts = trial.user_attrs.get(ATTEMPTS, 1)
        if attempts >= MAX_ATTEMPTS:
            outcome = Outcome("failed", reason=f"its worker {how}, {attempts} times: is there enough memory for --workers?")
            self.tell(trial, outcome)
            return outcome
        self._running.pop(trial.number, None)
        self._again(self.study.get_trials()[trial.number], attempts + 1)
        return None

    def _again(self, trial: "FrozenTrial", attempts: int) -> None:
        from optuna.trial import TrialState, create_trial

        attrs = {**trial.user_attrs, NUMBER: number_of(trial), AGAIN: trial.number, ATTEMPTS: attempts}
        self.study.tell(trial.number, state=TrialState.FAIL)
        self.study.add_trial(
            create_trial(
                state=TrialState.WAITING, params=trial.params, distributions=trial.distributions, user_attrs=attrs,
                intermediate_values=trial.intermediate_values,
            )
        )  # fmt: skip

    def _sampler(self, trials: "list[FrozenTrial]") -> Any:
        from optuna.samplers import TPESampler

        drawn = sum(AGAIN not in trial.user_attrs for trial in trials)
        return TPESampler(seed=int(np.random.SeedSequence((self.seed, drawn)).generate_state(1)[0]), constant_liar=True)

    def _give_up(self, trial: "Trial", earlier: "FrozenTrial") -> None:
        """The same settings give the same result: it counts for the sampler, and not as a trial."""
        from optuna.trial import TrialState

        trial.set_user_attr(COPY, earlier.number)
        if earlier.state == TrialState.COMPLETE:
            self.study.tell(trial, earlier.value)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _draw_unseen(self, trials: "list[FrozenTrial]") -> bool:
        """Try a random point that has not been next, where they can be counted. Whether any point may be left."""
        points = self.space.points()
        if points is None:
            return True
        seen = [each.params for each in counted(trials)]
        left = [point for point in points if point not in seen]
        if left:
            self.study.enqueue_trial(left[np.random.default_rng((self.seed, len(seen))).integers(len(left))])
        return bool(left)


COPIES = 50  # draws of settings that were tried already, before the search ends


def counted(trials: "list[FrozenTrial]") -> "list[FrozenTrial]":
    """The trials but those that another one took the place of, and copies."""
    replaced = {trial.user_attrs.get(AGAIN) for trial in trials}
    return [trial for trial in trials if trial.number not in replaced and COPY not in trial.user_attrs]


def number_of(trial: "FrozenTrial | Trial") -> int:
    """The number under which a trial is shown, tracked and kept."""
    return int(trial.user_attrs.get(NUMBER, trial.number))


def best_first(trials: "list[FrozenTrial]") -> "list[FrozenTrial]":
    """The complete ones; of equal ones the earlier is before the later."""
    done = [trial for trial in counted(trials) if trial.state.name == "COMPLETE"]
    return sorted(done, key=lambda trial: (-trial.values[0], number_of(trial)))
