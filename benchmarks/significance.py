"""How often do tests see a difference that is not there?

    python -m benchmarks.significance                     # 1,000 comparisons of each kind, minutes
    python -m benchmarks.significance --comparisons 100 --tries 100

Two systems of the same true quality on the same users, drawn anew every time (benchmarks/significance_world.py). A test at
the 5 % level is right where it cries wolf as often as the binomial law gives for 5 %: that range stands in the title, and
(!) beside what lies outside.
"""

import argparse
from typing import Any

from benchmarks.significance_world import BETTER, TESTS, facts, nominal
from benchmarks.table import publish

Table = tuple[str, list[str], list[list[str]]]


def tables(found: dict[str, Any], comparisons: int, tries: int) -> list[Table]:
    low, high = nominal(comparisons)
    title = f"False positives of {comparisons:,} null comparisons at the 5 % level; nominal: {low} to {high}"
    nulls = [
        [f"{name}, {users:,} users", *(_marked(counts[test], low, high) for test in TESTS)]
        for name, of_users in found["nulls"].items() for users, counts in of_users.items()
    ]  # fmt: skip
    ends = TESTS[:-1]  # ranks have no interval of the mean
    missed = [
        [f"{users:,} users", *(_marked(counts[test], low, high) for test in ends)] for users, counts in found["missed"].items()
    ]
    missing = f"Intervals of {comparisons:,} that miss a true difference of {BETTER:.4f} NDCG@10; nominal: {low} to {high}"
    result = [(title, ["values", *TESTS], nulls), (missing, ["", *ends], missed)]
    for systems, counts in found["families"].items():
        tried = tries if systems == 5 else max(1, tries // 4)
        most = nominal(tried)[1]
        rows = [[name, str(count)] for name, count in counts.items()]
        title = f"Of {tried:,} comparisons of {systems} equal systems, those with any false positive; 5 %: at most {most}"
        result.append((title, ["reference", "comparisons"], rows))
    return result


def _marked(count: int, low: int, high: int) -> str:
    return f"{count}" if low <= count <= high else f"{count} (!)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.significance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--tries", type=int, default=1000, help="comparisons of 5 systems; a quarter as many of 200")
    args = parser.parse_args()
    found = facts(args.comparisons, args.tries)
    publish(
        "significance",
        tables(found, args.comparisons, args.tries),
        {"comparisons": args.comparisons, "tries": args.tries, **found},
    )


if __name__ == "__main__":
    main()
