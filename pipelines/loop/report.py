"""A loop as one JSON document, a table and a figure. Shapes: U = users, P = pages of all days."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.daily.state import replace_text
from pipelines.loop.figure import figure
from pipelines.loop.measures import DayValues
from pipelines.loop.plan import BASE, Policy
from pipelines.loop.play import values
from recsys.errors import InputError
from recsys.metrics.paired import drawn_mean
from recsys.metrics.resample import draw_users
from recsys.metrics.significance import paired_bootstrap, percentile_interval
from recsys.simulate import Simulation

# Means over the days of the loop: name, what the table calls it, how it is written.
SHOWN = (
    ("click_rate", "clicked", ".2%"), ("regret", "regret", ".2%"), ("true_ndcg", "true NDCG", ".4f"),
    ("diversity", "diversity", ".3f"), ("gini", "Gini", ".3f"), ("head_share", "head", ".1%"), ("coverage", "coverage", ".1%"),
    ("data_to_live_s", "data to live, s", ".1f"),
)  # fmt: skip

REPLICATES = 1000
KNOWN = ("logging_regret", "logging_click_rate", "uniform_regret")  # of policies that are not played


def result(spec: Simulation, played: Mapping[str, tuple[Policy, list[dict[str, Any]], Path]]) -> dict[str, Any]:
    """Numbers of every policy by day, their means, and how each stands beside the base."""
    days = [entry["day"] for entry in played[BASE][1]]
    base = values(played[BASE][2], days)
    found: dict[str, Any] = {"world": spec.model_dump(mode="json"), "days": days, "policies": {}}
    for name, (policy, entries, folder) in played.items():
        found["policies"][name] = {
            "loop": policy.loop.model_dump(mode="json"), "days": entries,
            "mean": {key: mean for key, *_ in SHOWN if (mean := _mean(entries, key)) is not None},
            "beside_base": None if name == BASE else beside(values(folder, days), base),
        }  # fmt: skip
    for key in KNOWN:
        found["policies"][BASE]["mean"][key] = _mean(played[BASE][1], key)
    return found


def beside(value: Sequence[DayValues], base: Sequence[DayValues]) -> dict[str, Any]:
    """The gain in true value a page, as a share of the best list's: mean over users, with a 95 % interval over users. Under
    `ndcg`, the gain in the mean true NDCG of all pages, as a share of the base's.

    The same users ask for the same pages of both, so that the difference is paired. Pages of one user are dependent: users are
    what is drawn anew.
    """
    user_P, ours_P, best_P, ndcg_P = (
        np.concatenate([getattr(day, name) for day in value]) for name in ("user_R", "value_R", "best_R", "ndcg_R")
    )
    other_P, same_P, before_P = (
        np.concatenate([getattr(day, name) for day in base]) for name in ("value_R", "user_R", "ndcg_R")
    )
    if not np.array_equal(user_P, same_P):
        raise InputError("the two policies were asked by other users: play both in one world")
    row_P, users = np.unique(user_P, return_inverse=True)[1], len(np.unique(user_P))
    ours_U, other_U, best_U = (np.bincount(row_P, each, users) for each in (ours_P, other_P, best_P))
    found = paired_bootstrap(ours_U / best_U, other_U / best_U, rng=np.random.default_rng(0))
    times_RU = np.concatenate([np.ones((1, users), np.int32), draw_users(users, REPLICATES, np.random.default_rng(0))])
    gain_R = drawn_mean(ndcg_P, row_P, times_RU) / drawn_mean(before_P, row_P, times_RU) - 1  # the first draw is everybody
    low, high = percentile_interval(gain_R[1:], 0.95)
    ndcg = {"mean": float(gain_R[0]), "low": low, "high": high}
    return {"mean": float(found.mean), "low": float(found.low), "high": float(found.high), "ndcg": ndcg}


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """loop.json, loop.md and loop.png."""
    paths = [folder / f"loop.{suffix}" for suffix in ("json", "md", "png")]
    replace_text(paths[0], json.dumps(found) + "\n")
    replace_text(paths[1], markdown(found))
    figure(found).savefig(paths[2])
    return paths


def rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the table: a row a policy, those that were not played last."""
    columns = ["policy", *(label for _, label, _ in SHOWN), "value beside base", "NDCG beside base"]
    cells = []
    for name, policy in found["policies"].items():
        beside_base = policy["beside_base"]
        against = [interval(beside_base), interval(beside_base["ndcg"])] if beside_base else ["", ""]
        cells.append([name, *(_cell(policy["mean"].get(key), form) for key, _, form in SHOWN), *against])
    base = found["policies"][BASE]["mean"]
    known = {
        "the world's own": {"click_rate": base["logging_click_rate"], "regret": base["logging_regret"]},
        "items at random": {"regret": base["uniform_regret"]},
    }
    cells += [[name, *(_cell(means.get(key), form) for key, _, form in SHOWN), "", ""] for name, means in known.items()]
    return columns, cells


def interval(found: Mapping[str, float]) -> str:
    """A share, and between which shares it lies."""
    return "{mean:+.2%} ({low:+.2%} to {high:+.2%})".format(**found)


def markdown(found: Mapping[str, Any]) -> str:
    columns, cells = rows(found)
    table = "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *cells))
    stopped = [
        f"- {name}, {entry['day']}: {entry['stopped']}"
        for name, policy in found["policies"].items()
        for entry in policy["days"]
        if "stopped" in entry
    ]
    days = f"{len(found['days'])} days, {found['days'][0]} to {found['days'][-1]}"
    said = "\n\nDays without a new model:\n\n" + "\n".join(stopped) if stopped else ""
    return f"# Closed loop: {days}\n\nMeans over the days.\n\n{table}{said}\n\n![by day](loop.png)\n"


def _mean(entries: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [entry[key] for entry in entries if entry.get(key) is not None]
    return float(np.mean(known)) if known else None


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
