"""Training tables that leave no room for a gradient of their size: peak memory beside the bytes the tables and optimizer need.

    python -m benchmarks.table_memory

8 tables x 10 million rows x 16 numbers are 5.1 GB, their row-wise Adagrad another 0.3 GB. A dense gradient would add 5.1 GB,
dense Adam 15 GB. Each step looks up random rows and writes their new vectors in the backward pass.
"""

import argparse
import statistics
import sys
import time
from typing import Any

from benchmarks import measure

MIB = 1 << 20
LR = 0.02


def train(*, tables: int, rows: int, dim: int, batch: int, steps: int, seed: int) -> dict[str, Any]:
    """Resident MiB before the tables are made and once they are, and milliseconds a step. The peak is for the caller to see:
    a gradient may come and go within a step."""
    import psutil
    import torch

    from recsys.batch import Ids
    from recsys.models.embeddings import PooledEmbeddings, TableShape
    from recsys.train.distributed import process_group, shard

    def resident() -> float:
        return float(psutil.Process().memory_info().rss / MIB)

    torch.manual_seed(seed)
    names = [f"t{number}" for number in range(tables)]
    before, step_ms = resident(), []
    with process_group() as device:
        shapes = [TableShape(name, rows, dim, (name,)) for name in names]
        model = shard(PooledEmbeddings(shapes, init_std=0.01), device, optimizer="rowwise_adagrad", learning_rate=LR)
        made = resident()
        for _ in range(steps):
            ids = {name: Ids(torch.randint(0, rows, (batch,)), torch.ones(batch, dtype=torch.int64)) for name in names}
            start = time.perf_counter()
            found = model(ids)
            sum(vector_BD.square().sum() for vector_BD in found.values()).backward()
            step_ms.append(1e3 * (time.perf_counter() - start))
    return {"before_mib": before, "made_mib": made, "ms_per_step": statistics.median(step_ms)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table_memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=8)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of each table")
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    table_mib = args.tables * args.rows * args.dim * 4 / MIB
    state_mib = args.tables * args.rows * 4 / MIB
    _stop_without_room(table_mib + state_mib)
    shape = {name: getattr(args, name) for name in ("tables", "rows", "dim", "batch", "steps", "seed")}
    run = measure.call("benchmarks.table_memory", "train", args.threads, **shape)
    found, needed = run.result, table_mib + state_mib
    peak_ratio = (run.peak_mib - found["before_mib"]) / needed
    growth_mib = run.peak_mib - found["made_mib"]
    measure.report(
        "table_memory",
        f"{args.tables} tables x {args.rows:,} x {args.dim}, batch {args.batch}: peak {peak_ratio:.2f} times what tables and "
        f"optimizer need; a dense gradient would make it {(needed + table_mib) / needed:.2f} times",
        ["MiB", "value"],
        [
            ["tables", f"{table_mib:,.0f}"],
            ["row-wise Adagrad", f"{state_mib:,.0f}"],
            ["resident before tables are made", f"{found['before_mib']:,.0f}"],
            ["resident once they are", f"{found['made_mib']:,.0f}"],
            ["more while they train", f"{growth_mib:,.0f}"],
            ["peak of the process", f"{run.peak_mib:,}"],
        ],
        {
            **shape, "threads": args.threads, "table_mib": round(table_mib), "optimizer_mib": round(state_mib),
            "peak_mib": run.peak_mib, "peak_ratio": round(peak_ratio, 3), "growth_mib": round(growth_mib),
            **{name: round(value, 1) for name, value in found.items()},
        },
    )  # fmt: skip


def _stop_without_room(needed_mib: float) -> None:
    import psutil

    free_mib = psutil.virtual_memory().available / MIB
    if free_mib < 1.2 * needed_mib:
        sys.exit(
            f"the tables need {needed_mib:,.0f} MiB and a fifth more, this machine has {free_mib:,.0f} MiB free: lower --rows"
        )


if __name__ == "__main__":
    main()
