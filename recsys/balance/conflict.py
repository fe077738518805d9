"""How far the tasks agree on what to do with what they share. Shapes: T = tasks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.balance.gradients import Losses, gram, per_task, same_randomness, task_gradients


def gradient_report(losses: Losses, shared: Sequence[Tensor], tasks: Sequence[str], *, scale: float = 1.0) -> dict[str, Tensor]:
    """The norm of each task's gradient, `gradient_norm/<task>`, and the cosine of each pair, `conflict/<a>/<b>`.

    Of the losses without their weights, over all of `shared` as one vector; a negative cosine is a conflict, and a task without
    a gradient has cosine 0. No `.grad` changes, nor the state of torch's generators: a run is the same with or without reports.
    `scale`: what the losses were multiplied by, as float16 needs.
    """
    with same_randomness(shared) as rewind:
        gram_TT = gram(task_gradients(losses(), shared))
        rewind()
    norm_T = gram_TT.diagonal().clamp(min=0).sqrt()
    cosine_TT = gram_TT / (norm_T[:, None] * norm_T).clamp(min=torch.finfo(gram_TT.dtype).tiny)
    report = per_task("gradient_norm", norm_T / scale, tasks)
    for i, first in enumerate(tasks):
        report |= {f"conflict/{first}/{second}": cosine_TT[i, j] for j, second in enumerate(tasks) if j > i}
    return report
