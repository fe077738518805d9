"""The figure of a sweep: every trial in its order, and the validation metric against each of the keys that matter most."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys.plots import LINE_COLOURS, MODEL_COLOUR, _figure, _tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_KEYS = 5
COLUMNS = 3


def figure(found: Mapping[str, Any]) -> "Figure":
    """`found` as `sweep_report.result` makes it."""
    space, importance = found["space"], found["importance"]
    keys = sorted(space, key=lambda key: -importance.get(key, 0.0))[:MOST_KEYS]
    rows = math.ceil((1 + len(keys)) / COLUMNS)
    drawn = _figure(3.6 * COLUMNS, 0.6 + 2.9 * rows)
    axes = drawn.subplots(rows, COLUMNS, squeeze=False).flatten()
    _by_trial(axes[0], found["trials"], found["metric"])
    for ax, key in zip(axes[1:], keys, strict=False):
        _by_key(ax, found, key)
        share = f" ({importance[key]:.0%} of importance)" if key in importance else ""
        ax.set_xlabel(key.removeprefix(found["stage"] + ".") + share, fontsize=8)
    for ax in axes[1 + len(keys) :]:
        ax.set_visible(False)
    drawn.suptitle(f"{found['config']}, sweep {found['sweep']}: {found['metric']}")
    return drawn


def _by_trial(ax: "Axes", trials: list[dict[str, Any]], metric: str) -> None:
    done = [(each["trial"], each["valid"]) for each in trials if each["state"] == "complete"]
    pruned = [(each["trial"], _reached(each)) for each in trials if each["state"] == "pruned" and each["curve"]]
    best = [max(value for _, value in done[: place + 1]) for place in range(len(done))]
    ax.scatter(*zip(*done, strict=True), color=MODEL_COLOUR, s=18, label="complete")
    if pruned:
        ax.scatter(*zip(*pruned, strict=True), color=LINE_COLOURS[1], s=22, marker="x", label="pruned")
    ax.step([number for number, _ in done], best, where="post", color=LINE_COLOURS[2], linewidth=1.4, label="best so far")
    ax.set_xlabel("trial", fontsize=8)
    ax.set_ylabel(metric, fontsize=8)
    ax.legend(frameon=False, fontsize=7)
    _tidy(ax)


def _by_key(ax: "Axes", found: Mapping[str, Any], key: str) -> None:
    entry = found["space"][key]
    names = [_name(each) for each in entry.get("values", ())]
    if names:
        ax.set_xticks(range(len(names)), names, fontsize=7)
        ax.set_xlim(-0.5, len(names) - 0.5)
    elif entry.get("log"):
        ax.set_xscale("log")
    for state, colour, marker in (("complete", MODEL_COLOUR, "o"), ("pruned", LINE_COLOURS[1], "x")):
        shown = [each for each in found["trials"] if each["state"] == state and _reached(each) is not None]
        values = [each["parameters"][key] for each in shown]
        places = [names.index(_name(value)) for value in values] if names else values
        ax.scatter(places, [_reached(each) for each in shown], color=colour, marker=marker, s=20)
    _tidy(ax)


def _reached(trial: Mapping[str, Any]) -> float | None:
    """The best validation of a trial, of a pruned one until then."""
    return trial["valid"] if trial["valid"] is not None else max(trial["curve"].values(), default=None)


def _name(value: Any) -> str:
    """Short enough for an axis: of a section its kind."""
    text = str(value["kind"]) if isinstance(value, dict) and "kind" in value else str(value)
    return text if len(text) <= 16 else text[:15] + "…"
