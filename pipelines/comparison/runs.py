"""Runs of an experiment side by side: which is best where that can be said, by how much, and whether that may be chance."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from pipelines.comparison.changes import changes
from pipelines.comparison.comparison import RUNS_PER_TABLE, Cell, Comparison, Group, Row
from pipelines.comparison.consensus import consensus
from pipelines.comparison.groups import form_groups, is_ranked, warnings
from pipelines.comparison.values import TEST, Kept, read_kept
from pipelines.comparison.verdicts import Judged, judge
from recsys.errors import InputError
from recsys.metrics.direction import direction
from recsys.track import RunSummary, deleted_runs, list_runs

DEFAULT_METRICS = ("test/*", "floor/*", "export/*", "cost/*")
DELETED = "DELETED"
END = re.compile(r"(test/\w+)_(low|high)(/.*)?")  # test/AUC_low/click, which is shown with test/AUC/click
NAMES_SHOWN = 3
PATTERNS_SHOWN = 40


def compare(
    experiment: str, *, runs: Sequence[str] = (), metrics: Sequence[str] = (), limit: int | None = RUNS_PER_TABLE,
    against: str | None = None, uri: str | None = None,
) -> Comparison:  # fmt: skip
    """The named runs in the order given, or else the newest `limit` ones.

    `runs` holds names or, where no run is named so, beginnings of ids; `against` is one more of them, the reference that the
    others are held against. `metrics` holds patterns such as `test/NDCG*`, by default test, floor, export and cost metrics; of
    more runs than a table has columns only those of test metrics at the main metric's K have intervals by default. Raises
    InputError where the store, the experiment, a run or a pattern's metric is not there.
    """
    chosen, reference = _chosen(experiment, runs, limit, against, uri)
    names = _metric_names(chosen, metrics)
    main = main_metric(chosen, names)
    judged_names = names if metrics or len(chosen) <= RUNS_PER_TABLE else [name for name in names if _k(name) == _k(main)]
    kept = read_kept(chosen, judged_names, uri=uri)
    groups = form_groups(chosen, main, reference)
    judged = Judged({}, {})
    for group in groups:
        found = judge(
            [place for place in group.places if is_ranked(chosen[place])], kept, group.reference, group.hypotheses,
            None if len(chosen) <= RUNS_PER_TABLE else [main.removeprefix(TEST)],
        )  # fmt: skip
        judged.interval.update(found.interval)
        judged.difference.update(found.difference)
    _note_absences(chosen, groups, kept, names, judged_names)
    return Comparison(
        experiment, main, tuple(chosen), tuple(_row(chosen, groups, judged, name) for name in names), groups,
        tuple(warnings(chosen, groups, kept)), tuple(tuple(each.notes) for each in kept),
        consensus(chosen, groups, kept, _voters(chosen, main, names, metrics)), changes(chosen),
    )  # fmt: skip


def main_metric(runs: Sequence[RunSummary], names: Sequence[str]) -> str:
    """NDCG on the test split at the K that most runs have, else AUC, else the first metric whose direction is known.

    Of several K that as many have, the first of most runs' `evaluation.ks`, as in promotions. What is shown goes first.
    """
    counts = Counter(name for run in runs for name in run.metrics if re.fullmatch(r"test/NDCG@\d+", name))
    firsts = Counter(f"test/NDCG@{_first(run.params.get('evaluation.ks', ''))}" for run in runs)
    if shown := counts.keys() & set(names) or counts.keys():
        return min(shown, key=lambda name: (-counts[name], -firsts[name], int(name.partition("@")[2])))
    known = [name for name in names if direction(name)] or list(names)
    return next((name for name in known if name.startswith("test/AUC")), known[0] if known else "test/NDCG@10")


def _chosen(
    experiment: str, wanted: Sequence[str], limit: int | None, against: str | None, uri: str | None
) -> tuple[list[RunSummary], str | None]:
    """The runs, and the id of the reference that the user named."""
    known = list_runs(experiment, uri=uri)
    if not known and not (wanted or against):
        raise InputError(f"The experiment {experiment!r} has no runs: train a model first")
    chosen = {run.id: run for run in ([] if wanted else known[:limit])}
    for each in wanted:
        chosen |= {run.id: run for run in _named(experiment, known, each, uri)}
    if against is None:
        return list(chosen.values()), None
    found = _named(experiment, known, against, uri)
    if len(found) > 1:
        ids = ", ".join(run.id[:8] for run in found)
        raise InputError(f"--against {against!r} names {len(found)} runs ({ids}): give the beginning of one id")
    if not is_ranked(found[0]):
        raise InputError(
            f"--against {against!r} is {found[0].status}, or states no protocol or data: name a finished, evaluated run"
        )
    return list((chosen | {found[0].id: found[0]}).values()), found[0].id


def _named(experiment: str, known: Sequence[RunSummary], name: str, uri: str | None) -> list[RunSummary]:
    """Runs of this name, else with an id that begins so, else deleted ones."""
    found = [run for run in known if run.name == name] or [run for run in known if run.id.startswith(name)]
    if not found:
        gone = [replace(run, status=DELETED) for run in deleted_runs(experiment, uri=uri)]
        found = [run for run in gone if run.name == name] or [run for run in gone if run.id.startswith(name)]
    if not found:
        names = ", ".join(dict.fromkeys(run.name for run in known[:20]))
        raise InputError(f"No run is named {name!r} or has an id that begins so: choose among {names}")
    return found


def _metric_names(runs: Sequence[RunSummary], patterns: Sequence[str]) -> list[str]:
    """Names in order of the patterns; without patterns the default ones, or all where no run has any of those."""
    names = sorted({name for run in runs for name in run.metrics})
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"No metric of these runs matches {pattern!r}: choose among {_kinds(names)}")
    matching = [name for pattern in patterns or DEFAULT_METRICS for name in names if fnmatchcase(name, pattern)]
    ends = {name for name in names if (end := END.fullmatch(name)) and end[1] + (end[3] or "") in names}
    return [name for name in dict.fromkeys(matching) if patterns or name not in ends] or names


def _kinds(names: Sequence[str]) -> str:
    """What a pattern may match, in few words: floors and slices have the metrics of the test."""
    shown = [name for name in names if not name.startswith(("floor/", "slice/"))]
    shown += sorted({f"{name.rsplit('/', 1)[0]}/*" for name in names if name.startswith(("floor/", "slice/"))})
    more = len(shown) - PATTERNS_SHOWN
    return ", ".join(shown[:PATTERNS_SHOWN]) + (f" and {more} more, which --json lists" if more > 0 else "") or "none"


def _voters(runs: Sequence[RunSummary], main: str, names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """What votes on a consensus: the main metric and the AUC of each task, or what the user asked for."""
    if patterns:
        return [name for name in names if name.startswith(TEST) and direction(name)]
    return [main, *(name for name in names if name.startswith("test/AUC/"))]


def _row(runs: Sequence[RunSummary], groups: Sequence[Group], judged: Judged, metric: str) -> Row:
    sign, bare = direction(metric), metric.removeprefix(TEST) if metric.startswith(TEST) else ""
    best = {place for group in groups for place in _best(runs, group, metric, sign)}
    cells = []
    for place, run in enumerate(runs):
        low, high = judged.interval.get((place, bare)) or _logged_ends(run, metric)
        below = bool(sign) and _below_floor(run, metric, sign)
        cells.append(Cell(run.metrics.get(metric), low, high, place in best, below, judged.difference.get((place, bare))))
    return Row(metric, sign, tuple(cells))


def _logged_ends(run: RunSummary, metric: str) -> tuple[float | None, float | None]:
    """The interval that the run has measured itself, as that of AUC, whose users are not averaged over."""
    split, _, rest = metric.partition("/")
    name, slash, task = rest.partition("/")
    return run.metrics.get(f"{split}/{name}_low{slash}{task}"), run.metrics.get(f"{split}/{name}_high{slash}{task}")


def _best(runs: Sequence[RunSummary], group: Group, metric: str, sign: int) -> list[int]:
    """Places of the best value of a group among ranked runs; ties share it, unless all tie."""
    ranked = (place for place in group.places if is_ranked(runs[place]))
    values = {place: sign * value for place in ranked if math.isfinite(value := runs[place].metrics.get(metric, math.nan))}
    if not sign or len(set(values.values())) < 2:
        return []
    return [place for place, value in values.items() if value == max(values.values())]


def _below_floor(run: RunSummary, metric: str, sign: int) -> bool:
    split, _, bare = metric.partition("/")
    value = run.metrics.get(metric)
    return split == "test" and value is not None and any(sign * value <= sign * floor for floor in run.floors(bare).values())


def _note_absences(
    runs: Sequence[RunSummary], groups: Sequence[Group], kept: Sequence[Kept], names: Sequence[str], judged_names: Sequence[str]
) -> None:
    """Say of each run what the others of its group have and it lacks, and why it is not ranked."""
    for group in groups:
        measured = [
            each for each in names if each.startswith(TEST) and any(each in runs[place].metrics for place in group.places)
        ]
        valued = {name for place in group.places for name in kept[place].value}
        for place in group.places:
            run, own = runs[place], kept[place]
            if run.status != "FINISHED":
                mend = f": `mlflow runs restore --run-id {run.id}` brings it back" if run.status == DELETED else ""
                own.notes.insert(0, f"{run.status.lower()}, so not ranked{mend}")
            if any(name.startswith(TEST) for name in run.metrics):
                _note(own, [name for name in measured if name not in run.metrics], "has not measured")
                if own.value:
                    _note(
                        own,
                        [name for name in sorted(valued - set(own.value)) if TEST + name in run.metrics],
                        "no per-user values of",
                    )


def _note(kept: Kept, names: Sequence[str], what: str) -> None:
    if names:
        more = len(names) - NAMES_SHOWN
        kept.notes.append(f"{what} {', '.join(names[:NAMES_SHOWN])}" + (f" and {more} more" if more > 0 else ""))


def _first(ks: str) -> str:
    """The first number of a list in the words of a parameter, [10, 20]."""
    return ks.strip("[] ").partition(",")[0].strip()


def _k(metric: str) -> str:
    return metric.partition("@")[2].partition("/")[0]
