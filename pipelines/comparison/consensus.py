"""One order of the runs over several tasks or data sets, beside the mean. Shapes: T = what votes, S = runs, U = users."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.comparison.comparison import Consensus, Group
from pipelines.comparison.groups import is_ranked
from pipelines.comparison.values import TEST, Kept
from recsys.metrics import consensus as votes
from recsys.metrics.direction import direction
from recsys.track import RunSummary

VARIANT = "variant"  # the tag that names alike what was trained alike on several data sets; else the run's name does
Vote = tuple[str, str, list[int]]  # its name, its metric, the place of each run


def consensus(
    runs: Sequence[RunSummary], groups: Sequence[Group], kept: Sequence[Kept], metrics: Sequence[str]
) -> Consensus | None:  # fmt: skip
    """None where fewer than two things vote or fewer than two runs can be voted on.

    Where the runs are of one data set, each of `metrics` votes that all of them have. Where there are several data sets, each
    pair of data set and metric votes on the names (tag `variant`, else the run's name; the newest run of a name counts) that
    all of them have: across data sets only orders are compared. Of a data set with several protocols only the group with most
    runs votes. Where every vote has users' values, its ranking is its users' vote (`two_level`), else that of its metric.
    """
    largest: dict[str, list[int]] = {}
    for group in groups:
        ranked = [place for place in group.places if is_ranked(runs[place])]
        if len(ranked) > max(1, len(largest.get(group.data, ()))):
            largest[group.data] = ranked
    of_data = {data: _by_name(runs, ranked, alone=len(largest) == 1) for data, ranked in largest.items()}
    names = [name for name in next(iter(of_data.values()), {}) if all(name in each for each in of_data.values())]
    if len(names) < 2:
        return None
    cast: list[Vote] = []
    for data, label in _labels(runs, of_data).items():
        own = [of_data[data][name] for name in names]
        for metric in dict.fromkeys(metrics):
            if all(np.isfinite(runs[place].metrics.get(metric, np.nan)) for place in own):
                cast.append((f"{metric} on {label}" if label else metric, metric, own))
    return _count(runs, kept, names, cast) if len(cast) > 1 else None


def _by_name(runs: Sequence[RunSummary], ranked: Sequence[int], *, alone: bool) -> dict[str, int]:
    """Name -> place, the newest of a name; on a single data set runs that share a name are told apart by their ids."""
    names = {place: runs[place].tags.get(VARIANT, runs[place].name) for place in ranked}
    if alone:
        counts = Counter(names.values())
        return {name if counts[name] == 1 else f"{name} {runs[place].id[:8]}": place for place, name in names.items()}
    return {names[place]: place for place in sorted(ranked, key=lambda place: runs[place].start)}


def _labels(runs: Sequence[RunSummary], of_data: Mapping[str, dict[str, int]]) -> dict[str, str]:
    """What to call each data set: by its config where that tells them apart, else by its fingerprint."""
    if len(of_data) == 1:
        return dict.fromkeys(of_data, "")
    configs = {data: runs[next(iter(places.values()))].tags.get("config", data) for data, places in of_data.items()}
    return configs if len(set(configs.values())) == len(configs) else {data: data for data in of_data}


def _count(runs: Sequence[RunSummary], kept: Sequence[Kept], names: Sequence[str], cast: Sequence[Vote]) -> Consensus:
    value_TS = np.array([[runs[place].metrics[metric] for place in own] for _, metric, own in cast])
    sign_T = np.array([direction(metric) for _, metric, _ in cast])
    users = [_users(kept, metric, own) for _, metric, own in cast]
    by_users = all(each is not None for each in users)
    if by_users:
        points_S = votes.two_level([sign * each for sign, each in zip(sign_T, users, strict=True) if each is not None])
    else:
        points_S = votes.borda(sign_T[:, None] * value_TS)
    mean_S = value_TS.mean(0)
    one_unit = len(set(sign_T.tolist())) == 1
    order = votes.order(points_S, (sign_T[:, None] * value_TS).mean(0))
    return Consensus(
        tuple(name for name, _, _ in cast), tuple(names[place] for place in order),
        dict(zip(names, points_S.tolist(), strict=True)), dict(zip(names, mean_S.tolist(), strict=True)) if one_unit else {},
        int(sign_T[0]), "users" if by_users else "tasks",
    )  # fmt: skip


def _users(kept: Sequence[Kept], metric: str, places: Sequence[int]) -> np.ndarray | None:
    """value_US of the users who have one of every run, where all runs judged the same users and have stored their values."""
    name, first = metric.removeprefix(TEST), kept[places[0]].user_U
    if all(name in kept[place].value and np.array_equal(kept[place].user_U, first) for place in places):
        value_US = np.stack([kept[place].value[name] for place in places], axis=1)
        known_U = np.isfinite(value_US).all(1)
        return value_US[known_U] if known_U.any() else None
    return None
