"""Training on one GPU: examples per second, and how near tables and encoder come to what the device can do.

    python -m benchmarks.gpu

Two ceilings are measured in the same run: a large copy within device memory, and a large matrix product. Lookups are held
against the first: bytes of rows read, vectors written and ids read, over seconds. The encoder, forward and backward, is held
against the second in the same precision; its operations are those of its matrix products and of full, not causal, attention
(which torch does not count on a CPU). Retriever and ranker take the training loop's own steps (`recsys.train.step`), tables
and optimizers included. Products, encoder and steps run in float32 and in bfloat16. Times are medians of device events after
a warm-up; batches lie on the device. Where a step's time goes is told by waiting for the device after each part of it, so the
parts add up to more than the step. Exit code 2 where there is no GPU.

Needs torch, TorchRec, FBGEMM, numpy, pyarrow, pydantic and rich only, so that it runs on a machine that has just these.
Shapes: B = sequences or examples, N = ids of all rows of the batch joined, D = width, T = tasks.
"""

import argparse
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, nn
from torch.utils.flop_counter import FlopCounterMode

from recsys.balance.fixed import Fixed
from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID
from recsys.fit import Fit
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.regression import Regression
from recsys.heads.similarity import Dot
from recsys.models.embeddings import PooledEmbeddings, TableShape
from recsys.models.item_codes import ItemCodes
from recsys.models.item_tower import ItemTower
from recsys.models.mean_history import MeanHistory
from recsys.models.mmoe import MMoE
from recsys.models.ranker import Ranker, RankerDesign
from recsys.models.retriever import Retriever
from recsys.models.sasrec import SASRec
from recsys.train.distributed import place, process_group, shard
from recsys.train.job import Job, Learner
from recsys.train.ranking_objective import RankingLearner
from recsys.train.retrieval_objective import RetrievalLearner
from recsys.train.step import HALF, Stepper
from recsys.train.watch import Stopwatch

OUT = Path(__file__).parent / "out" / "gpu.json"
NO_GPU = 2
LR = 1e-3
PRECISIONS: tuple[Literal["float32"], Literal["bfloat16"]] = ("float32", "bfloat16")
TASKS = ("click", "buy")
FEATURES = [
    {"name": f"{owner}_{number}", "owner": owner, "size": 10_000, "multi_valued": False}
    for owner in ("user", "item", "context")
    for number in range(2)
]


@dataclass(frozen=True)
class Sizes:
    """What is run. The copy has so many MiB, the product so many rows and columns."""

    copy_mib: int = 4096
    product: int = 8192
    tables: int = 8
    rows: int = 4_000_000  # of a table
    table_dim: int = 64
    bag: int = 10
    lookup_batch: int = 65_536
    encoder_dim: int = 512
    encoder_blocks: int = 4
    encoder_batch: int = 256
    length: int = 200
    items: int = 100_000
    users: int = 1_000_000
    retriever_dim: int = 64
    retriever_batch: int = 256
    ranker_dim: int = 32
    ranker_batch: int = 8192
    history: int = 50
    warmup: int = 10
    repeat: int = 50


TINY = Sizes(
    copy_mib=4, product=64, tables=2, rows=1000, table_dim=8, bag=2, lookup_batch=64, encoder_dim=16, encoder_blocks=1,
    encoder_batch=4, length=8, items=50, users=50, retriever_dim=16, retriever_batch=4, ranker_dim=8, ranker_batch=16,
    history=5, warmup=1, repeat=2,
)  # fmt: skip


class Clock:
    """Median seconds of a piece of work: between device events on a GPU, on the wall elsewhere."""

    def __init__(self, device: torch.device, warmup: int, repeat: int):
        self.device, self.warmup, self.repeat = device, warmup, repeat

    def __call__(self, work: Callable[[], object]) -> float:
        for _ in range(self.warmup):
            work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return statistics.median(self._once(work) for _ in range(self.repeat))

    def _once(self, work: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


def copy_bandwidth(sizes: Sizes, device: torch.device, clock: Clock) -> float:
    """Bytes per second, read and written counted both."""
    source = torch.ones(sizes.copy_mib << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / clock(lambda: target.copy_(source))


def product_rate(sizes: Sizes, device: torch.device, clock: Clock) -> dict[str, float]:
    """Operations per second of a matrix product, by precision."""
    rates: dict[str, float] = {}
    for name in PRECISIONS:
        left, right = (torch.randn(sizes.product, sizes.product, device=device, dtype=getattr(torch, name)) for _ in range(2))
        rates[name] = 2 * sizes.product**3 / clock(functools.partial(torch.matmul, left, right))
    return rates


def lookups(sizes: Sizes, device: torch.device, clock: Clock) -> dict[str, float]:
    """Bytes per second of lookups alone, and milliseconds of them and of a whole step with the optimizer."""
    names = [f"t{number}" for number in range(sizes.tables)]
    shapes = [TableShape(name, sizes.rows, sizes.table_dim, (name,)) for name in names]
    tables = PooledEmbeddings(shapes, init_std=0.01)
    model = shard(tables, device, optimizer="rowwise_adagrad", learning_rate=LR)
    ids = {name: _random_ids(sizes.lookup_batch, sizes.bag, sizes.rows, device) for name in names}
    with torch.no_grad():
        forward = clock(lambda: model(ids))
    grads = [torch.randn(sizes.lookup_batch, sizes.table_dim, device=device) for _ in names]
    step = clock(lambda: torch.autograd.backward([*model(ids).values()], grads))
    num_ids = sum(len(row.value_N) for row in ids.values())
    bytes_moved = 4 * sizes.table_dim * (num_ids + sizes.tables * sizes.lookup_batch) + 8 * num_ids
    return {"bytes_per_s": bytes_moved / forward, "forward_ms": 1e3 * forward, "step_ms": 1e3 * step}


def encoder_rate(sizes: Sizes, device: torch.device, clock: Clock) -> dict[str, Any]:
    """Operations per second of the encoder, forward and backward, on histories of full length, by precision."""
    spec = SASRec(dim=sizes.encoder_dim, blocks=sizes.encoder_blocks, heads=max(1, sizes.encoder_dim // 64))
    encoder = spec.build(sizes.length).to(device)
    history = _random_ids(sizes.encoder_batch, sizes.length, 2, device, same_length=True)
    vector_ND = torch.randn(len(history.value_N), sizes.encoder_dim, device=device, requires_grad=True)

    def step(name: str) -> None:
        with torch.autocast(device.type, HALF[name]) if name in HALF else nullcontext():
            hidden_MD = encoder(vector_ND, history.length_B)
        hidden_MD.sum().backward()

    rates: dict[str, Any] = {}
    for name in PRECISIONS:
        with FlopCounterMode(display=False) as counter:
            step(name)
        seconds = clock(functools.partial(step, name))
        rates[name] = {"operations_per_s": counter.get_total_flops() / seconds, "step_ms": 1e3 * seconds}
    return rates


def retriever_rate(sizes: Sizes, device: torch.device, clock: Clock) -> dict[str, Any]:
    """Sequences and predicted events per second of a whole training step, full softmax, by precision."""
    batch = Batch({"history": _random_ids(sizes.retriever_batch, sizes.length // 2, sizes.items, device)})
    learner = RetrievalLearner(
        loss=FullSoftmax(), similarity=Dot(),
        codes=ItemCodes(torch.ones(sizes.items, dtype=torch.bool, device=device), {}),
    )  # fmt: skip

    def build() -> Retriever:
        return Retriever(SASRec(dim=sizes.retriever_dim), ItemTower(), sizes.items, {}, sizes.length)

    found = {name: _step_rate(build, learner, batch, name, device, clock) for name in PRECISIONS}
    per_ms = {"sequences_per_s": 1e3 * sizes.retriever_batch, "events_per_s": 1e3 * batch.num_predictions}
    return {name: {**{rate: count / each["step_ms"] for rate, count in per_ms.items()}, **each} for name, each in found.items()}


def ranker_rate(sizes: Sizes, device: torch.device, clock: Clock) -> dict[str, Any]:
    """Examples per second of a whole training step, by precision."""
    count = sizes.ranker_batch
    rows = {"user": sizes.users, "item": sizes.items, **{str(f["name"]): int(str(f["size"])) for f in FEATURES}}
    ids = {name: _random_ids(count, 1, size, device, same_length=True) for name, size in rows.items()}
    ids["history"] = _random_ids(count, sizes.history // 2, sizes.items, device)
    label_BT = torch.randint(0, 2, (count, len(TASKS)), device=device).float()
    batch = Batch(ids, label_BT, torch.ones(count, device=device))
    learner = RankingLearner(dict.fromkeys(TASKS, 1.0), (), Regression())
    design = RankerDesign(MeanHistory(), None, MMoE(), sizes.ranker_dim, TASKS, dropout=0.1)

    def build() -> Ranker:
        return Ranker(design, sizes.users, sizes.items, FEATURES)

    found = {name: _step_rate(build, learner, batch, name, device, clock) for name in PRECISIONS}
    return {name: {"examples_per_s": 1e3 * count / each["step_ms"], **each} for name, each in found.items()}


def _step_rate(
    build: Callable[[], nn.Module], learner: Learner, batch: Batch, precision: Literal["float32", "bfloat16"],
    device: torch.device, clock: Clock,
) -> dict[str, Any]:  # fmt: skip
    """Milliseconds of the loop's own step and of each part of it, on one batch again and again."""
    spec = Fit(learning_rate=LR, embedding_learning_rate=LR, precision=precision)
    job = Job(
        "benchmark", build, learner, Fixed().build(learner.weights), _OneBatch(batch), validate=lambda _: {}, main_metric=""
    )
    model = place(build(), device, optimizer=spec.embedding_optimizer, learning_rate=spec.embedding_learning_rate)
    stepper, generator = Stepper(job, spec, model, device), Generator()

    def step(watch: Stopwatch) -> None:
        stepper(batch, 0, 1.0, generator, watch)

    seconds = clock(functools.partial(step, Stopwatch(device)))
    exact = Stopwatch(device, exact=True)
    for _ in range(clock.repeat):
        step(exact)
    parts_ms = {name: 1e3 * value / clock.repeat for name, value in exact.read().items()}
    return {"step_ms": 1e3 * seconds, "parts_ms": parts_ms}


@dataclass(frozen=True)
class _OneBatch:
    """A loader whose epoch is the same batch once."""

    batch: Batch

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        yield self.batch

    def num_batches(self, epoch: int) -> int:
        return 1


def _random_ids(rows: int, mean: int, size: int, device: torch.device, *, same_length: bool = False) -> Ids:
    """Rows of 1 to twice `mean` ids, or of `mean` each."""
    length_B = torch.full((rows,), mean) if same_length else torch.randint(1, 2 * mean, (rows,))
    first = FIRST_ID if size > FIRST_ID else 0
    return Ids(torch.randint(first, size, (int(length_B.sum()),)), length_B).to(device)


def measured(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """All figures; device memory of a part is given back before the next."""
    clock = Clock(device, sizes.warmup, sizes.repeat)
    found: dict[str, Any] = {}
    parts: dict[str, Callable[[Sizes, torch.device, Clock], Any]] = {
        "copy_bytes_per_s": copy_bandwidth, "product_operations_per_s": product_rate, "lookups": lookups,
        "encoder": encoder_rate, "retriever": retriever_rate, "ranker": ranker_rate,
    }  # fmt: skip
    peak_mib = {}
    for name, part in parts.items():
        torch.manual_seed(0)
        with _peak_memory(device) as peak:
            found[name] = part(sizes, device, clock)
        peak_mib[name.removesuffix("_bytes_per_s").removesuffix("_operations_per_s")] = peak[0]
    found["lookups"]["share_of_copy"] = found["lookups"]["bytes_per_s"] / found["copy_bytes_per_s"]
    for name, each in found["encoder"].items():
        each["share_of_product"] = each["operations_per_s"] / found["product_operations_per_s"][name]
    return found | {"peak_mib": peak_mib}


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[list[int]]:
    """One number, filled in at the end: MiB of device memory, 0 where there is no GPU."""
    peak = [0]
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield peak
    if device.type == "cuda":
        peak[0] = torch.cuda.max_memory_allocated() >> 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: the same code on tiny sizes, as a test")
    parser.add_argument("--out", type=Path, default=OUT)
    for name, value in asdict(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {value:,}")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here: run this on a machine with one, or with --device cpu to try the code.", file=sys.stderr)
        sys.exit(NO_GPU)
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the process group takes a GPU where it sees one
    base = asdict(Sizes() if args.device == "cuda" else TINY)
    sizes = Sizes(**{name: value if getattr(args, name) is None else getattr(args, name) for name, value in base.items()})
    with process_group() as device:
        found = measured(sizes, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, tiny sizes: the figures say nothing"
    _report(args.out, name, sizes, found)


def _report(out: Path, device: str, sizes: Sizes, found: dict[str, Any]) -> None:
    lookup = found["lookups"]
    rows = [
        ("copy within device memory", "", f"{found['copy_bytes_per_s'] / 1e12:.3f} TB/s", ""),
        ("lookups", "float32", f"{lookup['bytes_per_s'] / 1e12:.3f} TB/s", f"{lookup['share_of_copy']:.1%} of the copy"),
    ]
    for name in PRECISIONS:
        encoder, retriever, ranker = (found[part][name] for part in ("encoder", "retriever", "ranker"))
        rows += [
            ("matrix product", name, f"{found['product_operations_per_s'][name] / 1e12:.1f} TFLOP/s", ""),
            (
                "encoder", name, f"{encoder['operations_per_s'] / 1e12:.1f} TFLOP/s",
                f"{encoder['share_of_product']:.1%} of the product",
            ),
            ("retriever's training step", name, f"{retriever['sequences_per_s']:,.0f} sequences/s", _most(retriever)),
            ("ranker's training step", name, f"{ranker['examples_per_s']:,.0f} examples/s", _most(ranker)),
        ]  # fmt: skip
    _table(device, ["part", "precision", "rate", "share"], rows)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts = {"benchmark": "gpu", "time": when, "device": device, "torch": torch.__version__, "sizes": asdict(sizes), **found}
    line = json.dumps(facts)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(line + "\n")
    print(line)


def _most(step: dict[str, Any]) -> str:
    """The part of the step that takes longest, and its share."""
    parts_ms = step["parts_ms"]
    longest = max(parts_ms, key=parts_ms.__getitem__)
    return f"{parts_ms[longest] / sum(parts_ms.values()):.0%} {longest}"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
