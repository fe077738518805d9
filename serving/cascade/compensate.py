"""What the model was wrong about lately, taken into account. Shapes: B = questions, K = items, T = tasks."""

from collections.abc import Sequence

from serving.bundle.bundle import Array
from serving.cascade.asked import Asked


def compensated(asked_B: Sequence[Asked], item_BK: Array, probability_BKT: Array) -> Array:
    """The very same array where no question wants it, or nothing is known yet."""
    better_BKT = probability_BKT
    for row, asked in enumerate(asked_B):
        if asked.errors is None:
            continue
        found_KT = asked.errors.compensated(asked.history_L, item_BK[row], probability_BKT[row])
        if better_BKT is probability_BKT:
            better_BKT = probability_BKT.copy()
        better_BKT[row] = found_KT
    return better_BKT
