"""How far each column of a day has moved from the days before: the population stability index, and what of it is chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from pipelines.monitor.arrived import Arrived
from pipelines.monitor.histograms import aligned
from recsys.data.drift import psi

CHANCE = 0.999  # quantile of the index of two samples of one population, below which it says nothing
FEWEST = 5  # users that a bin is to be expected to have, as for a chi-squared test; bins with fewer count as one


@dataclass(frozen=True)
class Moved:
    column: str
    psi: float
    chance: float  # what the index stays below in 999 of 1,000 cases where nothing moved

    @property
    def shown(self) -> float:
        """The index where it is more than chance, else 0."""
        return self.psi if self.psi > self.chance else 0.0


def stability(found: Arrived, before: Sequence[Arrived]) -> list[Moved]:
    """Of every column of the day that the days before have, too, against all of them together; the largest index first.

    Chance: (1/n + 1/m) times the quantile of a chi-squared variable with one degree of freedom less than there are bins.
    Yurdakul 2018, "Statistical Properties of Population Stability Index",
    https://scholarworks.wmich.edu/dissertations/3208. Differs from the source: n and m count users where they are fewer than
    rows, since rows of one user are alike; a quantile of 0.999 takes the place of 0.95, since many columns are looked at; and
    half a user is added to each bin, so that one which happens to be empty on a day of few users is no alarm.
    """
    rows = []
    for column, bins in found.columns.items():
        known = [each.columns[column] for each in before if column in each.columns]
        if not known:
            continue
        old, new = aligned(known, bins)
        n = max(1, min(sum(new), found.users))
        m = max(1, min(sum(old), sum(each.users for each in before if column in each.columns)))
        old, new = _joined(old, new, n)
        rows.append(Moved(column, psi(_users(old, m), _users(new, n)), (1 / n + 1 / m) * chi_squared(len(old) - 1)))
    return sorted(rows, key=lambda row: (-row.psi, row.column))


def _users(counts: Sequence[int], number: int) -> list[float]:
    """The counts as users, half a one more in each bin."""
    return [each / max(1, sum(counts)) * number + 0.5 for each in counts]


def _joined(old: Sequence[int], new: Sequence[int], n: int) -> tuple[list[int], list[int]]:
    """Bins of which the days before lead to expect too few of `n` users count as one, the last."""
    total = max(1, sum(old))
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a or b]
    large = [(a, b) for a, b in pairs if a / total * n >= FEWEST]
    small = [(a, b) for a, b in pairs if a / total * n < FEWEST]
    if small:
        large.append((sum(a for a, _ in small), sum(b for _, b in small)))
    return [a for a, _ in large], [b for _, b in large]


def chi_squared(degrees: int, quantile: float = CHANCE) -> float:
    """The quantile of a chi-squared variable, to within a few percent: Wilson and Hilferty 1931, PNAS 17(12), 684-688,
    https://doi.org/10.1073/pnas.17.12.684. 0 for no degrees of freedom."""
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + NormalDist().inv_cdf(quantile) * spread**0.5) ** 3)
