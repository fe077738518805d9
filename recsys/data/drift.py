"""What moved between two data-quality reports."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

MOVED, SHIFTED = 0.1, 0.25
EMPTY = 1e-4  # the share an empty bin counts as, so that the logarithm exists
COUNTS = ("users", "items", "events")
SHARES = ("share_with_tied_time", "share_of_repeated_pairs")

Quantity = tuple[Any, Any]  # what is shown of it, and what is compared


def drift(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of `name`, `before`, `after`, `measure`, `value` and `verdict`, the largest value first.

    Histograms and shares are measured by `psi`, counts and label means by `relative`. The bands of the verdict are those usual
    for PSI (Siddiqi, Credit Risk Scorecards, Wiley 2006; https://www.alibabacloud.com/help/doc-detail/283802.html): below 0.1
    "stable", up to 0.25 "moved", above "shifted". What only one report has is "added" or "removed". `before` and `after` are
    the mean of the events per user or item, the share of the largest bin of a histogram over time, and else the quantity.
    """
    rows = [
        *_rows(_counts(before), _counts(after), "relative", relative),
        *_rows(_histograms(before) | _shares(before), _histograms(after) | _shares(after), "PSI", psi),
    ]
    return sorted(rows, key=lambda row: -np.inf if row["value"] is None else -row["value"])


def psi(before: Sequence[float], after: Sequence[float]) -> float:
    """Population stability index of two histograms over the same bins: the sum of (a - b) ln(a / b) over their shares.

    Reviewed by du Pisanie et al. 2023, https://arxiv.org/abs/2303.01227. Differs from the plain formula, which has no value
    for an empty bin: it counts as a share of 0.0001. Bins that only one histogram has are empty in the other.
    """
    counts = np.zeros((2, max(len(before), len(after), 1)))
    counts[0, : len(before)], counts[1, : len(after)] = before, after
    shares = np.maximum(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12), EMPTY)
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def relative(before: float, after: float) -> float:
    """The change as a share of the larger one: 0 where both are equal, 1 where one of them is 0."""
    return abs(after - before) / max(abs(before), abs(after)) if before != after else 0.0


def _rows(
    before: Mapping[str, Quantity], after: Mapping[str, Quantity], measure: str, measured: Callable[[Any, Any], float]
) -> list[dict[str, Any]]:
    rows = []
    for name in dict.fromkeys([*before, *after]):
        (shown_before, old), (shown_after, new) = before.get(name, (None, None)), after.get(name, (None, None))
        value = measured(old, new) if name in before and name in after else None
        verdict = "added" if name not in before else "removed" if value is None else _verdict(value)
        shown = {"before": shown_before, "after": shown_after}
        rows.append({"name": name, **shown, "measure": measure, "value": value, "verdict": verdict})
    return rows


def _verdict(value: float) -> str:
    return "stable" if value < MOVED else "moved" if value <= SHIFTED else "shifted"


def _counts(report: Mapping[str, Any]) -> dict[str, Quantity]:
    found = {name: report[name] for name in COUNTS}
    for task, splits in report["tasks"].items():
        found |= {f"mean of label {task}, {split}": facts["mean"] for split, facts in splits.items() if facts["labelled"]}
    return {name: (value, value) for name, value in found.items()}


def _histograms(report: Mapping[str, Any]) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}
    for owner in ("user", "item"):
        facts = report[f"events_per_{owner}"]
        found[f"events per {owner}"] = (facts["mean"], facts["histogram"])
    for name, key in (("hour of day", "events_per_hour_of_day"), ("weekday", "events_per_weekday")):
        if report["time"]:
            bins = report["time"][key]
            found[f"events per {name}"] = (max(bins) / sum(bins), bins)
    return found


def _shares(report: Mapping[str, Any]) -> dict[str, Quantity]:
    """Compared as two bins: the share and the rest."""
    shares = {name.replace("_", " "): report[name] for name in SHARES}
    shares["share of rows quarantined"] = report["rows"]["quarantined"] / max(1, report["rows"]["read"])
    for facts in report["features"]:
        shares[f"unknown share of {facts['owner']} feature {facts['feature']}"] = facts["unknown_share"]
    return {name: (share, [share, 1 - share]) for name, share in shares.items()}
