"""Learning rates over the steps, as a share of the highest."""

import math

from recsys.fit import Fit


def rate_share(spec: Fit, *, step: int, total_steps: int, seconds: float) -> float:
    """Linear warm-up, then the decay to `final_share`, over steps or over `max_minutes`, whichever ends first."""
    done = done_share(spec, step=step, total_steps=total_steps, seconds=seconds)
    warm = min(1.0, (step + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
    match spec.decay:
        case "cosine":
            left = 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            left = 1 - done
        case "constant":
            left = 1.0
    return warm * (spec.final_share + (1 - spec.final_share) * left)


def done_share(spec: Fit, *, step: int, total_steps: int, seconds: float) -> float:
    """How much of the training lies behind, from 0 to 1, in steps or in `max_minutes`, whichever is more."""
    done = step / max(1, total_steps)
    if spec.max_minutes is not None:
        done = max(done, seconds / (60 * spec.max_minutes))
    return min(1.0, done)
