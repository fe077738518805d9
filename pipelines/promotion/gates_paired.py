"""Gates on the main metric, user by user: the candidate beside the floor and beside the champion. U = users."""

import numpy as np

from pipelines.per_user import SERVED
from pipelines.promotion.facts import Facts, Measured
from pipelines.promotion.gate import Gate, switched_off
from recsys.metrics.significance import PairedDifference, paired_bootstrap
from recsys.promotion_config import ChampionGate, FloorGate
from recsys.track import DATA, PROTOCOL

MIN_USERS = 30  # the bootstrap of fewer is too narrow: five users who happen to agree would be a proof
SEED = 0  # the same values give the same decision, whoever asks


def floor_gate(rule: FloorGate | None, facts: Facts, metric: str) -> Gate:
    """The model is above every model that needs no training.

    All of them have to be beaten, so testing each at the full level needs no correction: the intersection-union test of Berger
    1982, https://doi.org/10.1080/00401706.1982.10487790.
    """
    candidate = facts.candidate
    if rule is None:
        return switched_off("floor", "promotion.floor")
    means = candidate.run.floors(metric) if candidate.run else {}
    mean = candidate.metric(f"test/{metric}")
    if mean is None:
        return Gate("floor", False, None, max(means.values(), default=None), f"test/{metric} was not logged: evaluate the run")
    if not means:
        return Gate("floor", False, mean, None, f"no floor/<name>/{metric} was logged: evaluate the run with its floors")
    best = max(means, key=lambda name: means[name])
    if rule.mode == "mean":
        return Gate("floor", mean > means[best], mean, means[best], f"test/{metric} above the best floor, {best}")
    found = {}
    for name in sorted(means):
        pair = _pair(candidate, SERVED, candidate, name, metric)
        if isinstance(pair, str):
            return Gate("floor", False, None, 0.0, f"{pair}, or set promotion.floor.mode to mean")
        found[name] = _interval(*pair, rule.confidence)
    hardest = min(found, key=lambda name: found[name].low)
    said = _said(found[hardest], rule.confidence, f"floor {hardest}", metric, mean, means[hardest])
    return Gate("floor", all(each.low > 0 for each in found.values()), found[hardest].low, 0.0, said)


def champion_gate(rule: ChampionGate | None, facts: Facts, metric: str) -> Gate:
    """The model is not worse than the champion by more than a margin, or is better.

    A non-inferiority test through the confidence interval: Piaggio et al. 2012, https://doi.org/10.1001/jama.2012.87802.
    Differs from the paper: the margin is a share of the champion's measured mean, which is taken for known.
    """
    champion = facts.champion
    if rule is None:
        return switched_off("champion", "promotion.champion")
    if champion is None:
        return Gate("champion", True, None, None, "there is no champion yet")
    if facts.same:
        return Gate("champion", True, None, None, "the candidate is the champion already")
    if champion.run is None:
        run, number = champion.version.run_id, champion.number
        mend = f"restore it with `mlflow runs restore --run-id {run}`, or promote once with promotion.champion=null"
        return Gate("champion", False, None, None, f"the run {run} of the champion, version {number}, was deleted: {mend}")
    for tag, key, choice in (
        (PROTOCOL, "on_other_protocol", rule.on_other_protocol),
        (DATA, "on_other_data", rule.on_other_data),
    ):
        if (how := facts.differs(tag)) is not None:
            mend = "" if choice == "allow" else f": evaluate both alike, or set promotion.champion.{key}=allow"
            return Gate("champion", choice == "allow", None, None, f"not comparable: {how}{mend}")
    pair = _pair(facts.candidate, SERVED, champion, SERVED, metric)
    if isinstance(pair, str):
        return Gate("champion", False, None, None, f"{pair}, or promote once with promotion.champion=null")
    a_U, b_U = pair
    found = _interval(a_U, b_U, rule.confidence)
    limit = -rule.margin * float(b_U.mean()) if rule.mode == "not_worse" else 0.0
    said = _said(found, rule.confidence, f"champion, version {champion.number}", metric, float(a_U.mean()), float(b_U.mean()))
    return Gate("champion", found.low > limit, found.low, limit, f"{rule.mode}: {said}")


def _pair(a: Measured, a_rows: str, b: Measured, b_rows: str, metric: str) -> tuple[np.ndarray, np.ndarray] | str:
    """The values of both on the same users in the same order, or why there are none and the mend."""
    import polars as pl

    sides = []
    for measured, rows in ((a, a_rows), (b, b_rows)):
        table = measured.per_user
        if table is None or metric not in table.columns or (of_it := table.filter(pl.col("model") == rows)).is_empty():
            return f"version {measured.number} has no {metric} by user for {rows!r}: evaluate and export its run again"
        if not of_it[metric].cast(pl.Float64).is_finite().fill_null(value=False).all():
            return f"version {measured.number} has a {metric} by user that is not a number: evaluate its run again"
        sides.append(of_it.select("user", metric))
    both = sides[0].join(sides[1], on="user", suffix="_b").sort("user")
    if not len(both) == len(sides[0]) == len(sides[1]):
        return (
            f"the two were judged on other users ({len(sides[0])} and {len(sides[1])}, {len(both)} shared): evaluate both again"
        )
    if len(both) < MIN_USERS:
        return f"{len(both)} users were judged, and fewer than {MIN_USERS} show nothing: take a larger test split"
    return both[metric].to_numpy(), both[f"{metric}_b"].to_numpy()


def _interval(a_U: np.ndarray, b_U: np.ndarray, confidence: float) -> PairedDifference:
    return paired_bootstrap(a_U, b_U, confidence=confidence, rng=np.random.default_rng(SEED))


def _said(found: PairedDifference, confidence: float, other: str, metric: str, mine: float, theirs: float) -> str:
    return (
        f"{metric} {mine:.4f} minus {theirs:.4f} of the {other} is {found.mean:+.4f}, {confidence:.0%} interval over users "
        f"[{found.low:+.4f}, {found.high:+.4f}]"
    )
