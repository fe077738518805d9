"""The figure of a depth sweep."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys.plots import LINE_COLOURS, MODEL_COLOUR, _figure, _tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(found: Mapping[str, Any]) -> "Figure":
    """Quality above, with the interval of the difference to the best depth; time of a list below."""
    rows, metric = found["depths"], found["metric"]
    depths = [row["depth"] for row in rows]
    best = next(row[metric] for row in rows if row["depth"] == found["peak"])
    drawn = _figure(6.4, 5.6)
    above, below = drawn.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    above.axhline(best, color="#b8bec6", linewidth=1)
    bounds = [[best + row["to_peak"][side] for row in rows] for side in ("low", "high")]
    above.fill_between(depths, *bounds, color=MODEL_COLOUR, alpha=0.15, label="95 % interval of the difference to the best")
    above.plot(depths, [row[metric] for row in rows], marker="o", color=MODEL_COLOUR, label=metric)
    if found["rerank"]:
        after = [row["reranked"][metric] for row in rows]
        above.plot(depths, after, marker="s", color=LINE_COLOURS[1], label=f"{metric} after {', '.join(found['rerank'])}")
    above.axvline(found["smallest"], color=LINE_COLOURS[2], linewidth=1.2, linestyle="--", label="smallest that is not worse")
    above.set_ylabel(metric)
    above.legend(frameon=False, fontsize=7)
    below.plot(depths, [row["ms_per_list"] for row in rows], marker="o", color=LINE_COLOURS[5])
    below.set_ylabel("ms a list")
    below.set_ylim(0, 1.15 * max(row["ms_per_list"] for row in rows))
    below.set_xscale("log")
    below.set_xticks(depths, [str(depth) for depth in depths], fontsize=8)
    below.minorticks_off()
    below.set_xlabel("candidates that are ranked")
    for ax in (above, below):
        _tidy(ax)
    drawn.suptitle(f"{found['config']}: depth of ranking, {found['users']:,} {found['split']} users")
    return drawn
