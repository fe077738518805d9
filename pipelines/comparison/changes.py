"""What sets each run apart from the others: the parameters in which they differ."""

from collections import Counter
from collections.abc import Sequence

from recsys.track import RunSummary

SHOWN = 6  # parameters of a run in a line of text


def changes(runs: Sequence[RunSummary]) -> tuple[dict[str, str], ...]:
    """Of each run, the parameters whose value is not the one that most runs have (of equally many the oldest run's).

    A parameter that a run lacks, since another choice leaves no room for it, is not among them.
    """
    names = dict.fromkeys(name for run in runs for name in run.params)
    oldest_first = sorted(runs, key=lambda run: run.start)
    usual = {name: Counter(run.params.get(name) for run in oldest_first).most_common(1)[0][0] for name in names}
    return tuple({name: value for name, value in run.params.items() if value != usual[name]} for run in runs)


def in_words(changed: dict[str, str], shown: int = SHOWN) -> str:
    """As `--set` takes them; "as most" for a run of the usual settings."""
    said = [f"{name}={value}" for name, value in list(changed.items())[:shown]]
    more = len(changed) - len(said)
    return ", ".join(said) + (f" and {more} more" if more > 0 else "") if said else "as most"
