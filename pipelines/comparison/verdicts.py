"""Intervals of runs and their differences from the reference, all metrics of a group with the same users drawn anew.

Shapes: U = users, R = bootstrap replicates, M = columns, one for each run and metric that has values.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.comparison.comparison import Difference
from pipelines.comparison.values import Kept
from recsys.metrics.direction import direction
from recsys.metrics.resample import drawn_user_means
from recsys.metrics.significance import REPLICATES, bootstrap_tests, holm, paired_t, wilcoxon

SEED = 0
Key = tuple[int, str]  # place of a run, metric


class Judged(NamedTuple):
    """What users' values say: intervals of each metric of each run, and its difference from the reference."""

    interval: dict[Key, tuple[float, float]]
    difference: dict[Key, Difference]


def judge(
    places: Sequence[int], kept: Sequence[Kept], reference: int | None, hypotheses: int, beside: Collection[str] | None = None
) -> Judged:  # fmt: skip
    """Of the runs of one group. Runs that judged other users than the reference are held against it over the users that both
    judged, and have a note that says so. A metric that some users do not have is taken over those who have it.
    The t test and Wilcoxon's, which stand beside the bootstrap, are made of the metrics `beside`, by default of all."""
    found = Judged({}, {})
    for part in _parts(places, kept):
        own = _judge(places, part, reference, beside)
        found.interval.update(own.interval)
        found.difference.update(own.difference)
    return Judged(found.interval, _corrected(found.difference, hypotheses))


def _parts(places: Sequence[int], kept: Sequence[Kept]) -> Iterator[list[Kept]]:
    """The metrics that every user has, and each of the others with the users who have it."""
    lacking = {name for place in places for name, value_U in kept[place].value.items() if not np.isfinite(value_U).all()}
    yield [Kept(each.user_U, {n: v for n, v in each.value.items() if n not in lacking}, None, each.notes) for each in kept]
    for name in sorted(lacking):
        part = []
        for each in kept:
            value_U = each.value.get(name, np.empty(0))
            known_U = np.isfinite(value_U)
            part.append(Kept(each.user_U[known_U], {name: value_U[known_U]}) if known_U.any() else Kept())
        yield part


def _judge(
    places: Sequence[int], kept: Sequence[Kept], reference: int | None, beside: Collection[str] | None
) -> Judged:  # fmt: skip
    alike: dict[bytes, list[int]] = defaultdict(list)
    for place in places:
        if kept[place].value:
            alike[kept[place].user_U.tobytes()].append(place)
    found = Judged({}, {})
    for some in alike.values():
        table = _Columns.of(some, kept, kept[some[0]].user_U)
        found.interval.update(table.intervals())
        if reference is None or not kept[reference].value:
            continue
        if reference not in some:
            table = _with_reference(some, kept, reference)
        found.difference.update(table.differences(reference, beside))
    return found


class _Columns(NamedTuple):
    """Users' values of some runs on the same users, and their means over users drawn anew."""

    keys: list[Key]
    value_UM: np.ndarray
    drawn_RM: np.ndarray

    @classmethod
    def of(cls, places: Sequence[int], kept: Sequence[Kept], user_U: np.ndarray) -> "_Columns":
        keys = [(place, metric) for place in places for metric in kept[place].value]
        columns = []
        for place, metric in keys:
            own_U, value_U = kept[place].user_U, kept[place].value[metric]
            columns.append(value_U if len(own_U) == len(user_U) else value_U[np.searchsorted(own_U, user_U)])
        value_UM = np.stack(columns, axis=1)
        return cls(keys, value_UM, drawn_user_means(value_UM, REPLICATES, np.random.default_rng(SEED)))

    def intervals(self) -> dict[Key, tuple[float, float]]:
        """Percentiles, as `mean_interval`."""
        low_M, high_M = np.quantile(self.drawn_RM, [0.025, 0.975], axis=0)
        return dict(zip(self.keys, zip(low_M.tolist(), high_M.tolist(), strict=True), strict=True))

    def differences(self, reference: int, beside: Collection[str] | None) -> Iterator[tuple[Key, Difference]]:
        base = {metric: column for column, (place, metric) in enumerate(self.keys) if place == reference}
        pairs = [(column, base[m]) for column, (place, m) in enumerate(self.keys) if place != reference and m in base]
        if not pairs:
            return
        own, other = (list(each) for each in zip(*pairs, strict=True))
        gap_UM = self.value_UM[:, own] - self.value_UM[:, other]
        better_M, worse_M = (gap_UM > 0).sum(0), (gap_UM < 0).sum(0)
        mean_M = gap_UM.mean(0)
        tests = bootstrap_tests(mean_M, self.drawn_RM[:, own] - self.drawn_RM[:, other], changed_M=better_M + worse_M)
        for place, column in enumerate(own):
            key = self.keys[column]
            gap_U = gap_UM[:, place]
            wins, losses = int(better_M[place]), int(worse_M[place])
            mean, low, high, p = (float(each_M[place]) for each_M in tests)
            less = direction(key[1]) < 0
            if less:
                wins, losses = losses, wins
            p_t, p_ranks = (paired_t(gap_U), wilcoxon(gap_U)) if beside is None or key[1] in beside else (None, None)
            yield (
                key,
                Difference(mean, low, high, p, p_t, p_ranks, p, len(gap_U), wins, losses, (mean < 0) if less else mean > 0),
            )


def _with_reference(places: Sequence[int], kept: Sequence[Kept], reference: int) -> _Columns:
    """Runs and the reference on the users that both judged."""
    common_U = np.intersect1d(kept[places[0]].user_U, kept[reference].user_U, assume_unique=True)
    for place in places:
        kept[place].notes.append(
            f"judged {len(kept[place].user_U):,} users, the reference {len(kept[reference].user_U):,}: "
            f"their difference is over the {len(common_U):,} that both judged"
        )
    if not len(common_U):
        return _Columns([], np.empty((0, 0)), np.empty((0, 0)))
    return _Columns.of([*places, reference], kept, common_U)


def _corrected(found: dict[Key, Difference], hypotheses: int) -> dict[Key, Difference]:
    """With Holm's correction over the runs, for each metric apart."""
    of_metric: dict[str, list[Key]] = defaultdict(list)
    for key in found:
        of_metric[key[1]].append(key)
    result = {}
    for keys in of_metric.values():
        p_H = holm(np.array([found[key].p for key in keys]), max(hypotheses, len(keys)))
        for key, p in zip(keys, p_H, strict=True):
            result[key] = Difference(**{**found[key].__dict__, "p_holm": float(p)})
    return result
