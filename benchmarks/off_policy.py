"""Do estimates of what another policy would earn hold the truth?

    python -m benchmarks.off_policy --data ../shared/data/obd_men
    python -m benchmarks.off_policy --logs 1000        # a narrower answer, in 3 minutes

Two policies that ran side by side in a shop, each by the log of the other (benchmarks/open_bandit.py), and a simulated world
whose truth is exact, with a hundred logs (benchmarks/off_policy_world.py). A 95 % interval is right where it holds the truth in
as many logs as the binomial law gives for 95 %: that range stands in the title.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.off_policy_world import POLICIES, SPEC, Setting, coverage
from benchmarks.open_bandit import compared
from benchmarks.table import publish
from pipelines.off_policy import ESTIMATORS

LOGS, REQUESTS, DRAWS = 100, 2000, 1000


def bandit_table(entry: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    error = 1.96 * entry["truth_error"]
    known = entry["support"]
    title = (
        f"{entry['policy']} by the log of {entry['logger']}: its own log says {entry['truth']:.4f} "
        f"({entry['truth'] - error:.4f} to {entry['truth'] + error:.4f}); effective rows {known['ess']:,.0f} of "
        f"{known['rows']:,}, largest weight {known['max_weight']:.1f}, mean weight {known['mean_weight']:.3f}"
    )
    rows = [
        [name, f"{e['value']:.4f}", _span(e["low"], e["high"]), _span(*e["drawn"]), f"{e['gap']:+.1f}"]
        for name, e in entry["estimates"].items()
    ]  # fmt: skip
    return title, ["estimator", "value", "normal", "bootstrap", "distance in standard errors"], rows


def _span(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}"


def world_table(name: str, found: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    low, high = found["nominal"]
    title = (
        f"{name} policy, truth {found['truth']:.4f}: {found['logs']} logs of {found['rows']:,} rows and {found['users']:.0f} "
        f"users, effective share {found['ess_share']:.1%}, largest weight {found['max_weight']:.0f}; "
        f"nominal: {low} to {high} logs"
    )
    rows = []
    for estimator, e in found["estimators"].items():
        held = [str(e["held"][kind]) for kind in ("users", "users, bootstrap", "users, studentised", "pages", "rows")]
        rows.append([estimator, f"{e['bias']:+.4f}", f"{e['spread']:.4f}", f"{e['error']:.4f}", *held, str(e["held_own_mean"])])
    columns = ["estimator", "bias", "spread", "mean error", "users", "bootstrap", "studentised", "pages", "rows", "own mean"]
    return title, columns, rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.off_policy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of Open Bandit's men's campaign; without it only the simulated world")
    parser.add_argument("--logs", type=int, default=LOGS, help="of the simulated world")
    args = parser.parse_args()
    tables: list[tuple[str, list[str], list[list[str]]]] = []
    facts: dict[str, Any] = {}
    if args.data is not None:
        facts["open_bandit"] = compared(args.data, ESTIMATORS)
        tables += [bandit_table(entry) for entry in facts["open_bandit"]]
    for name, (taste, popularity) in POLICIES.items():
        setting = Setting(SPEC, taste, popularity)
        facts[name] = coverage(
            setting, ESTIMATORS, logs=args.logs, requests=REQUESTS, draws=DRAWS,
            progress=lambda done: print(f"\r{done} of {args.logs} logs", end="", file=sys.stderr, flush=True),
        )  # fmt: skip
        tables.append(world_table(name, facts[name]))
    publish("off_policy", tables, {"requests": REQUESTS, "draws": DRAWS, **facts})


if __name__ == "__main__":
    main()
