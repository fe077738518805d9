"""Lists for many users at once, into one Parquet file, by the same code that answers a request."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recsys.columns import FIRST_ID
from recsys.columns import USER_ID as USER_TEXT
from recsys.errors import InputError
from serving.answers import Recommendations
from serving.bundle.bundle import Bundle
from serving.cascade.asked import check_k
from serving.catalogue.catalogue import EVERYTHING, Catalogue
from serving.recommend import recommend_many
from serving.schema import Query, parse

USERS_AT_ONCE = 64  # asked of the graphs together
USERS_WRITTEN = 4_096  # lists held in memory, and the rows of one group of the file
TASK = "task_"  # before the name of each task's column


def recommend_all(
    bundle_folder: Path, out: Path, k: int, users: Iterable[str] | None = None, *,
    catalogue: Catalogue = EVERYTHING, threads: int = 1, console: Console | None = None, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Write k rows for each user (by default all users of the bundle), a list's rows one after the other, best first.

    Columns: user_id, rank (from 1 on), item_id, score, source, a probability `task_NAME` for each task (null where the ranker
    did not see the item), and the bundle's version. Written aside and renamed, so that `out` has all lists or is as it was.
    `seed`: of exploration, where the bundle's rerankers explore. Returns counts and users/s. Raises InputError.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: name a file in a folder that is there")
    bundle = Bundle.load(bundle_folder, threads)
    check_k(bundle, parse(Query, json.dumps({"user_id": "anybody", "k": k})))
    total = len(bundle.users) - FIRST_ID if users is None else len(users) if isinstance(users, Sized) else None
    scratch = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    began_s, done, rows = time.perf_counter(), 0, 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with (
            pq.ParquetWriter(scratch, _schema(bundle), compression="zstd") as writer,
            Progress(*columns, console=console, transient=True, disable=not (console and console.is_terminal)) as bar,
        ):
            shown = bar.add_task("recommending", total=total)
            for part in _parts(_all_users(bundle) if users is None else users, USERS_WRITTEN):
                answers: list[Recommendations] = []
                for some in _parts(part, USERS_AT_ONCE):
                    queries = [Query(user_id=user, k=k) for user in some]
                    answers += recommend_many(bundle, queries, catalogue=catalogue, seed=seed + done + len(answers))
                    bar.advance(shown, len(some))
                table = _table(bundle, part, answers)
                writer.write_table(table)
                done, rows = done + len(part), rows + len(table)
        scratch.rename(out)
    finally:
        scratch.unlink(missing_ok=True)
    seconds = time.perf_counter() - began_s
    return {
        "out": str(out), "users": done, "rows": rows, "version": bundle.version, "seconds": round(seconds, 3),
        "users_per_s": round(done / seconds, 1),
    }  # fmt: skip


def _all_users(bundle: Bundle) -> Iterator[str]:
    for start in range(FIRST_ID, len(bundle.users), USERS_WRITTEN):
        yield from bundle.users[USER_TEXT].slice(start, USERS_WRITTEN).to_pylist()


def _parts(users: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(users)
    return iter(lambda: list(islice(rest, size)), [])


def _schema(bundle: Bundle) -> pa.Schema:
    return pa.schema(
        [
            ("user_id", pa.string()),
            ("rank", pa.int32()),
            ("item_id", pa.string()),
            ("score", pa.float64()),
            ("source", pa.dictionary(pa.int8(), pa.string())),
            *[(TASK + task, pa.float32()) for task in bundle.facts.tasks],
            ("version", pa.dictionary(pa.int8(), pa.string())),
        ]
    )


def _table(bundle: Bundle, users: Sequence[str], answers: Sequence[Recommendations]) -> pa.Table:
    pairs = [(user, answer) for user, answer in zip(users, answers, strict=True)]
    items = [item for answer in answers for item in answer.items]
    columns: dict[str, list[Any]] = {
        "user_id": [user for user, answer in pairs for _ in answer.items],
        "rank": [place for answer in answers for place in range(1, len(answer.items) + 1)],
        "item_id": [item.item_id for item in items],
        "score": [item.score for item in items],
        "source": [item.source for item in items],
        **{TASK + task: [item.tasks.get(task) for item in items] for task in bundle.facts.tasks},
        "version": [bundle.version] * len(items),
    }
    return pa.table(columns, _schema(bundle))
