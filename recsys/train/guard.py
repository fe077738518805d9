"""The guard of a model that training begins from: what comes after it has to be better, or it stays."""

from collections.abc import Mapping, Sequence
from typing import Any

from recsys.errors import InputError
from recsys.train.job import Job

History = Sequence[Mapping[str, Any]]
"""The entries of the validations so far; the first is that of the model that training began from."""


def takes_over(value: float | None, best: float | None, history: History, job: Job) -> bool:
    """Whether a model of this value is kept in place of the best so far. Raises InputError where nothing can be compared."""
    assert job.guard is not None
    if not history:
        if value is None:
            raise InputError(
                f"{job.name}: the model it begins from has no {job.main_metric}: choose a metric that exists for it"
            )
        return True
    assert best is not None
    return value is not None and value > max(best, history[0][job.main_metric] + job.guard)


def verdict(history: History, job: Job) -> dict[str, Any]:
    """What the model that training began from reached, the best of those after it, which of the two is kept, and why."""
    assert job.guard is not None
    metric = job.main_metric
    parent: float = history[0][metric]
    best: float | None = max((entry[metric] for entry in history[1:] if metric in entry), default=None)
    kept = "policy" if best is not None and best > parent + job.guard else "parent"
    if best is None:
        why = f"no validation after training has a {metric}"
    elif kept == "policy":
        why = f"the best {metric} is {best:.4f}, above the parent's {parent:.4f} by {best - parent:.4f}"
    else:
        why = f"the best {metric} is {best:.4f}, not above the parent's {parent:.4f}"
        why += f" by more than {job.guard:g}" if job.guard else ""
    return {"parent": parent, "best": best, "kept": kept, "why": why}
