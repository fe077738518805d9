"""Did a training go well? Its losses, validation by validation, beside those of the days before."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipelines.monitor.alarm import Alarm
from pipelines.workspace import Workspace

Curve = list[float]


def read_curves(workspace: Workspace, parts: Sequence[str]) -> dict[str, Curve]:
    """Part -> its training loss at each validation, of the parts that are trained."""
    from recsys.train.loop import HISTORY_FILE

    curves = {}
    for part in parts:
        with suppress(OSError, ValueError):  # gone or damaged, which is no reason to fail the day that looks back at it
            history = json.loads((workspace.checkpoint(part) / HISTORY_FILE).read_text())
            curves[part] = [float(entry["loss"]) for entry in history if "loss" in entry]
    return curves


def failed_batches(workspace: Workspace, parts: Sequence[str]) -> dict[str, list[Path]]:
    """Part -> batches that were kept because a loss or a gradient was not finite."""
    folders = {part: workspace.checkpoint(part).with_name(f"{part}.failed") for part in parts}
    return {part: sorted(folder.glob("step-*")) for part, folder in folders.items() if folder.is_dir()}


def training_alarms(
    curves: Mapping[str, Curve],
    before: Sequence[Mapping[str, Curve]],
    failed: Mapping[str, Sequence[Path]],
    limit: float | None,
) -> Iterator[Alarm]:
    """A loss that is no number, one that ends far above its lowest value, or far above where the days before ended."""
    for part, batches in failed.items():
        if batches:
            yield Alarm(
                f"training: {part}, not finite", len(batches), 0,
                f"{part}: {len(batches)} steps had a loss or a gradient that is not finite, and 0 should: look at the batch in "
                f"{batches[-1]}, lower the learning rates of {part}.fit, and remove the folder when it is mended",
            )  # fmt: skip
    for part, curve in curves.items():
        if not all(map(math.isfinite, curve)):
            yield Alarm(
                f"training: {part}, not finite", None, None,
                f"{part}: its training loss is not a finite number at some validation, and each should be: lower the learning "
                f"rates of {part}.fit",
            )  # fmt: skip
        elif curve and limit is not None:
            yield from _of_curve(part, curve, limit)
            yield from _beside(part, curve[-1], [each[part][-1] for each in before if each.get(part)], limit)


def _of_curve(part: str, curve: Curve, limit: float) -> Iterator[Alarm]:
    lowest = min(curve)
    if lowest > 0 and curve[-1] / lowest - 1 > limit:
        yield Alarm(
            f"training: {part}, loss curve", curve[-1] / lowest - 1, limit,
            f"{part}: its training loss ended at {curve[-1]:.4g}, {curve[-1] / lowest - 1:.0%} above its lowest value "
            f"{lowest:.4g}, more than daily.alarm_loss {limit:.0%}: lower the learning rates of {part}.fit",
        )  # fmt: skip


def _beside(part: str, last: float, before: Sequence[float], limit: float) -> Iterator[Alarm]:
    usual = float(np.median([each for each in before if math.isfinite(each)] or [0.0]))
    if usual > 0 and last / usual - 1 > limit:
        yield Alarm(
            f"training: {part}, loss", last / usual - 1, limit,
            f"{part}: its training loss ended at {last:.4g}, {last / usual - 1:.0%} above the {usual:.4g} of the days before, "
            f"more than daily.alarm_loss {limit:.0%}: compare the days' data, or train from scratch with `recsys daily --full`",
        )  # fmt: skip
