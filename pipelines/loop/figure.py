"""The figure of a closed loop: a panel a measure, a line a policy, days from left to right."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys.plots import LINE_COLOURS, _cycle, _figure, _tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "regret": "regret", "true_ndcg": "true NDCG", "click_rate": "clicks an item shown", "diversity": "diversity of a list",
    "gini": "Gini of exposure", "head_share": "share of the head", "coverage": "coverage", "data_to_live_s": "data to live, s",
}  # fmt: skip
OWN = {"regret": "logging_regret", "click_rate": "logging_click_rate"}  # of the world's own policy at the same requests
COLUMNS = 2


def figure(found: Mapping[str, Any]) -> "Figure":
    """Drawn from what `pipelines.loop.report.result` gives."""
    drawn = _figure(9.0, 9.6)
    axes = drawn.subplots(len(PANELS) // COLUMNS, COLUMNS, sharex=True).ravel()
    named = list(zip(found["policies"].items(), _cycle(LINE_COLOURS, len(found["policies"])), strict=True))
    for ax, (key, label) in zip(axes, PANELS.items(), strict=True):
        for (name, policy), colour in named:
            points = [(place, day[key]) for place, day in enumerate(policy["days"], 1) if day.get(key) is not None]
            if points:
                ax.plot(*zip(*points, strict=True), label=name, color=colour, linewidth=1.6, marker="o", markersize=3.5)
        if key in OWN:
            own = [day[OWN[key]] for day in named[0][0][1]["days"]]
            ax.plot(range(1, len(own) + 1), own, color="#9aa3ab", linewidth=1.2, linestyle="--", label="the world's own")
        ax.set_ylabel(label)
        _tidy(ax)
    axes[0].legend(frameon=False, fontsize=7)
    for ax in axes[-COLUMNS:]:
        ax.set_xlabel("day of the loop")
        ax.xaxis.get_major_locator().set_params(integer=True)
    drawn.suptitle(f"Closed loop of {len(found['days'])} days")
    return drawn
