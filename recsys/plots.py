"""Figures of a run, as plain matplotlib objects: no window, no global state, and no import of matplotlib before first use."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODEL_COLOUR = "#1b6ca8"
FLOOR_COLOURS = ("#b8bec6", "#d8a86a", "#9fb89a", "#c59bb6", "#8f9bb3")
VERDICT_COLOURS = {1: "#3d9970", -1: "#d1603d", 0: "#9aa3ab"}
LINE_COLOURS = (MODEL_COLOUR, "#d1603d", "#3d9970", "#8e5ea2", "#b58900", "#5c6b73")


def curves(history: Sequence[Mapping[str, float]], title: str) -> "Figure":
    """Loss above, validation metrics below, against the training step.

    An entry of `history` holds "step" and any of the values: names that contain "loss" are drawn above, names that begin
    with "valid/" (losses excepted) below. A panel without values is left out.
    """
    names = sorted({name for entry in history for name in entry} - {"step"})
    losses = [name for name in names if "loss" in name.lower()]
    scores = [name for name in names if name.startswith("valid/") and name not in losses]
    panels = [(label, shown) for label, shown in (("loss", losses), ("validation metric", scores)) if shown]
    figure = _figure(7.0, 1.0 + 2.6 * max(1, len(panels)))
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (label, shown) in zip(axes, panels, strict=False):
        for name, colour in zip(shown, _cycle(LINE_COLOURS, len(shown)), strict=True):
            points = [(entry["step"], entry[name]) for entry in history if name in entry]
            marker = "o" if len(points) <= 30 else None
            ax.plot(*zip(*points, strict=True), label=name, color=colour, linewidth=1.6, marker=marker, markersize=3.5)
        ax.set_ylabel(label)
        ax.legend(frameon=False)
        _tidy(ax)
    axes[-1].set_xlabel("training step")
    figure.suptitle(title)
    return figure


def metric_bars(model: Mapping[str, float], floors: Mapping[str, Mapping[str, float]], title: str) -> "Figure":
    """The model's metrics beside the floors' (`floors[name][metric]`), one group of bars a metric.

    A floor without one of the metrics has no bar there.
    """
    metrics = list(model)
    systems = {"model": model, **floors}
    figure = _figure(max(5.0, 1.6 + 0.5 * len(metrics) * len(systems)), 3.8)
    ax = figure.subplots()
    width = 0.8 / len(systems)
    colours = [MODEL_COLOUR, *_cycle(FLOOR_COLOURS, len(floors))]
    for place, ((system, values), colour) in enumerate(zip(systems.items(), colours, strict=True)):
        known = [(index, values[metric]) for index, metric in enumerate(metrics) if metric in values]
        left = [index + (place - (len(systems) - 1) / 2) * width for index, _ in known]
        bars = ax.bar(left, [value for _, value in known], width * 0.92, label=system, color=colour)
        ax.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
    ax.set_xticks(range(len(metrics)), metrics)
    ax.set_ylabel("value")
    ax.set_title(title)
    ax.margins(y=0.12)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _tidy(ax)
    return figure


def differences(panels: Mapping[str, Mapping[str, tuple[float, float, float, int]]], title: str) -> "Figure":
    """Differences to a base with their intervals, a panel a metric, a row a variant: (mean, low, high, verdict).

    Verdict 1 is better, -1 worse; 0, in grey, says nothing. A panel without variants is left out.
    """
    panels = {metric: rows for metric, rows in panels.items() if rows}
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    columns = max(1, len(panels))
    figure = _figure(2.0 + 3.0 * columns, 1.4 + 0.34 * max(1, len(names)))
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for ax, (metric, rows) in zip(axes, panels.items(), strict=False):
        for name, (mean, low, high, sign) in rows.items():
            place, colour = names.index(name), VERDICT_COLOURS[sign]
            ax.plot([low, high], [place, place], color=colour, linewidth=2.2)
            ax.plot([mean], [place], marker="o", color=colour, markersize=5.5)
        ax.axvline(0, color="#5c6b73", linewidth=1)
        ax.set_xlabel(metric)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color="#e6e6e6", linewidth=0.8)
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(title)
    return figure


def levels(shares: Mapping[str, Sequence[float]], title: str) -> "Figure":
    """Shares of 0 to 1 of each level of semantic ids, one group of bars a level."""
    figure = _figure(6.4, 3.6)
    ax = figure.subplots()
    width = 0.8 / len(shares)
    for place, ((name, values), colour) in enumerate(zip(shares.items(), _cycle(LINE_COLOURS, len(shares)), strict=True)):
        left = [level + (place - (len(shares) - 1) / 2) * width for level in range(len(values))]
        ax.bar_label(ax.bar(left, values, width * 0.92, label=name, color=colour), fmt="%.2f", fontsize=7, padding=2)
    ax.set_xticks(range(len(values)), [f"level {level + 1}" for level in range(len(values))])
    ax.set_ylim(0, 1.15)
    ax.legend(frameon=False, ncols=len(shares), loc="upper center", fontsize=8)
    ax.set_title(title)
    _tidy(ax)
    return figure


def _figure(width_in: float, height_in: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), dpi=120, layout="constrained")


def _tidy(ax: "Axes") -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)


def _cycle(colours: Sequence[str], count: int) -> list[str]:
    return [colours[index % len(colours)] for index in range(count)]
