"""One training step of the embedding tables: ours, from a Batch's ids to vectors and gradients back, beside FBGEMM alone.

    python -m benchmarks.embeddings

Step: forward, backward with given gradients, and the optimizer. Ours and FBGEMM do row-wise Adagrad in the backward pass;
torch's EmbeddingBag takes SGD or (element-wise) Adagrad with sparse gradients, TorchRec's collection left unsharded has dense
ones. All ways get the same batches and take turns, step by step.
Shapes: B = rows of a batch, N = ids of a feature, D = width.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks import measure

WAYS = {
    "fbgemm": "FBGEMM's fused tables alone",
    "ours": "ours, sharded in one process",
    "bag_sgd": "nn.EmbeddingBag, sparse SGD",
    "bag_adagrad": "nn.EmbeddingBag, sparse Adagrad",
    "dense": "TorchRec unsharded (dense gradients)",
}
USUAL = ("fbgemm", "ours", "bag_sgd", "bag_adagrad")
BATCHES = 8  # different ones, so that rows of the tables do not stay in the caches
BAR = 1.5
LR = 0.02


class Settings(NamedTuple):
    tables: int
    rows: int
    dim: int
    batch: int
    bag: int
    seed: int = 0

    @property
    def names(self) -> list[str]:
        return [f"t{number}" for number in range(self.tables)]


Step = Callable[[int], None]


def steps(ways: Sequence[str], settings: dict[str, Any], warmup: int, repeat: int) -> dict[str, list[float]]:
    """Milliseconds of every timed step of each way."""
    import torch

    from recsys.train.distributed import process_group

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    chosen = Settings(**settings)
    torch.manual_seed(chosen.seed)
    with process_group():
        batches, grads = _batches(chosen), torch.randn(chosen.tables, chosen.batch, chosen.dim) / chosen.batch
        made = {way: MAKERS[way](chosen, batches, grads) for way in ways}
        found: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(warmup + repeat):
            for way, step in made.items():
                start = time.perf_counter()
                step(number % BATCHES)
                found[way].append((time.perf_counter() - start) * 1e3)
    return {way: each[warmup:] for way, each in found.items()}


def _batches(settings: Settings) -> list[Any]:
    """As a loader gives them: a Batch of Ids. Bags of 1, or of 1 to twice the mean."""
    import torch

    from recsys.batch import Batch, Ids

    def ids() -> Ids:
        longest = 2 * settings.bag - 1
        length_B = torch.randint(1, longest + 1, (settings.batch,)) if longest > 1 else torch.ones(settings.batch).long()
        return Ids(torch.randint(0, settings.rows, (int(length_B.sum()),)), length_B)

    return [Batch({name: ids() for name in settings.names}) for _ in range(BATCHES)]


def _ours(settings: Settings, batches: Sequence[Any], grads: Any) -> Step:
    import torch

    from recsys.models.embeddings import PooledEmbeddings, TableShape
    from recsys.train.distributed import shard

    shapes = [TableShape(name, settings.rows, settings.dim, (name,)) for name in settings.names]
    model = shard(PooledEmbeddings(shapes, init_std=0.01), torch.device("cpu"), optimizer="rowwise_adagrad", learning_rate=LR)
    grad_of = dict(zip(settings.names, grads, strict=True))

    def step(number: int) -> None:
        found = model(batches[number].ids)
        torch.autograd.backward([found[name] for name in grad_of], list(grad_of.values()))

    return step


def _fbgemm(settings: Settings, batches: Sequence[Any], grads: Any) -> Step:
    import torch
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen

    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(settings.rows, settings.dim, EmbeddingLocation.HOST, ComputeDevice.CPU)] * settings.tables,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD, pooling_mode=PoolingMode.MEAN, learning_rate=LR, eps=1e-8,
    )  # fmt: skip
    for weight in tables.split_embedding_weights():
        torch.nn.init.normal_(weight, std=0.01)
    given = [_joined(batch) for batch in batches]
    grad = torch.cat(list(grads), dim=1)

    def step(number: int) -> None:
        tables(*given[number]).backward(grad)

    return step


def _joined(batch: Any) -> tuple[Any, Any]:
    """Indices and offsets of all tables, in the form FBGEMM takes."""
    import torch

    length = torch.cat([row.length_B for row in batch.ids.values()])
    offsets = torch.cat([length.new_zeros(1), length.cumsum(0)])
    return torch.cat([row.value_N for row in batch.ids.values()]), offsets


def _bags(optimizer_name: str) -> Callable[[Settings, Sequence[Any], Any], Step]:
    def make(settings: Settings, batches: Sequence[Any], grads: Any) -> Step:
        import torch

        tables = torch.nn.ModuleDict(
            {name: torch.nn.EmbeddingBag(settings.rows, settings.dim, mode="mean", sparse=True) for name in settings.names}
        )
        optimizer = getattr(torch.optim, optimizer_name)(tables.parameters(), lr=LR)
        given = [[(row.value_N, row.length_B.cumsum(0) - row.length_B) for row in batch.ids.values()] for batch in batches]

        def step(number: int) -> None:
            optimizer.zero_grad()
            vectors = [table(*ids) for table, ids in zip(tables.values(), given[number], strict=True)]
            torch.autograd.backward(vectors, list(grads))
            optimizer.step()

        return step

    return make


def _dense(settings: Settings, batches: Sequence[Any], grads: Any) -> Step:
    import torch
    import torchrec.optim as optim
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

    configs = [
        EmbeddingBagConfig(
            name=name, num_embeddings=settings.rows, embedding_dim=settings.dim, feature_names=[name], pooling=PoolingType.MEAN
        )
        for name in settings.names
    ]
    tables = EmbeddingBagCollection(tables=configs)
    apply_optimizer_in_backward(optim.RowWiseAdagrad, tables.parameters(), {"lr": LR})
    grad = torch.cat(list(grads), dim=1)

    def step(number: int) -> None:
        rows = batches[number].ids
        values, lengths = (torch.cat([getattr(row, part) for row in rows.values()]) for part in ("value_N", "length_B"))
        tables(KeyedJaggedTensor(settings.names, values, lengths=lengths)).values().backward(grad)

    return step


MAKERS: dict[str, Callable[[Settings, Sequence[Any], Any], Step]] = {
    "fbgemm": _fbgemm, "ours": _ours, "bag_sgd": _bags("SGD"), "bag_adagrad": _bags("Adagrad"), "dense": _dense,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embeddings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each table")
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--bags", type=int, nargs="+", default=[1, 10], help="mean numbers of ids of a bag")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(USUAL), help="`dense` takes seconds a step")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=30, help="timed steps of each way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not {"fbgemm", "ours"} <= set(args.ways):
        sys.exit("--ways needs fbgemm and ours: the ratio of these two is what is measured")
    shape = {name: getattr(args, name) for name in ("tables", "rows", "dim", "batch", "seed")}
    runs = {
        bag: measure.call(
            "benchmarks.embeddings", "steps", args.threads,
            ways=args.ways, settings={**shape, "bag": bag}, warmup=args.warmup, repeat=args.repeat,
        )
        for bag in args.bags
    }  # fmt: skip
    ms = {bag: {way: statistics.median(each) for way, each in run.result.items()} for bag, run in runs.items()}
    ratio = {bag: each["ours"] / each["fbgemm"] for bag, each in ms.items()}
    measure.report(
        "embeddings",
        f"{args.tables} tables x {args.rows:,} x {args.dim}, batch {args.batch}, {args.threads} threads: "
        + ", ".join(f"bags of {bag}: {ratio[bag]:.2f} times FBGEMM (at most {BAR})" for bag in ms),
        ["way", *(part for bag in ms for part in (f"ms, bags of {bag}", "x FBGEMM"))],
        [
            [WAYS[way], *(part for each in ms.values() for part in (f"{each[way]:.2f}", f"{each[way] / each['fbgemm']:.2f}"))]
            for way in args.ways
        ],
        {
            **shape, "threads": args.threads, "repeat": args.repeat,
            "ms": {bag: {way: round(value, 3) for way, value in each.items()} for bag, each in ms.items()},
            "fastest_ms": {bag: {way: round(min(each), 3) for way, each in run.result.items()} for bag, run in runs.items()},
            "ratio": {bag: round(value, 3) for bag, value in ratio.items()},
            "peak_mib": {bag: run.peak_mib for bag, run in runs.items()},
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
