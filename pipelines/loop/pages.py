"""A day at the endpoint: requests of the world are asked over HTTP in order of time, and what the users do is posted at once.

Every page that was served is a line of a file, so that a loop that was killed goes on with the next page. Shapes:
R requests, S slots.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.data.canonical import clean_text
from recsys.errors import InputError
from recsys.simulate.files import Files
from recsys.simulate.loop import EMPTY, Audience
from recsys.simulate.world import TASKS, Floats, Ints
from serving.answers import Recommendations
from serving.client import Client
from serving.journal.writer import repair
from serving.schema import Event


@dataclass(frozen=True, eq=False)
class Pages:
    """What was shown to an audience, page by page, and how it was served."""

    item_RS: Ints  # rows of the world's items
    propensity_RS: Floats  # NaN where chance had no part
    lines: list[dict[str, Any]]


def serve(
    client: Client, files: Files, audience: Audience, path: Path, *, context: Mapping[str, str], ask: Mapping[str, Any]
) -> Pages:
    """All pages of an audience; those that stand in `path` are not asked for again.

    `context` are the config's expressions for what is known at request time, by name; a model is sent what it takes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    repair(path)  # half a line of a killed loop
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    taken = client.info().models["live"].context
    known = contexts(files, audience, {name: text for name, text in context.items() if name in taken})
    if lines:  # killed before its events were posted, or not: they count once
        _post(client, files, audience, len(lines) - 1, lines[-1])
    with path.open("a") as out:
        for row in range(len(lines), len(audience.logged_RS)):
            line = _ask(client, files, audience, row, {**ask, **({"context": known[row]} if known[row] else {})})
            out.write(json.dumps(line) + "\n")
            out.flush()  # before anything is posted: a page that is asked for again must not see its own clicks
            _post(client, files, audience, row, line)
            lines.append(line)
    return _pages(lines, audience.spec.slots)


def contexts(files: Files, audience: Audience, context: Mapping[str, str]) -> list[dict[str, str]]:
    """Of each request the values of its context features, read as `prepare` reads them from the log. Raises InputError."""
    visits = audience.visits
    requests = pl.LazyFrame(
        {
            "user_id": files.user_id.gather(visits.user_R), "time_ms": visits.time_R + visits.start_ms,
            "request_id": np.arange(len(visits.user_R)) + visits.page,
        }
    )  # fmt: skip
    try:
        if not context:
            return [{} for _ in visits.user_R]
        found = requests.select(**{name: clean_text(text, requests) for name, text in context.items()}).collect()
    except pl.exceptions.ColumnNotFoundError as error:
        raise InputError(
            f"data.events.context reads column {str(error).splitlines()[0]}, which a request of the loop does not have: use "
            "user_id, time_ms or request_id"
        ) from error
    return [{name: value for name, value in row.items() if value is not None} for row in found.iter_rows(named=True)]


def _ask(client: Client, files: Files, audience: Audience, row: int, ask: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for one page; returns its line."""
    user, time_ms = _who(files, audience, row)
    began_s = time.perf_counter()
    answer = client.recommend(user_id=user, k=audience.spec.slots, time_ms=time_ms, **ask)
    took_ms = (time.perf_counter() - began_s) * 1000
    return {
        "page": audience.visits.page + row, "request_id": answer.request_id, "items": _numbers(answer),
        "version": answer.version, "ms": round(took_ms, 2), "propensity": [item.propensity for item in answer.items],
        "flags": list(answer.flags), "fallback": answer.fallback,
    }  # fmt: skip


def _post(client: Client, files: Files, audience: Audience, row: int, line: Mapping[str, Any]) -> None:
    """Tell the server what the user does with a page; events have ids of their own, so that they may come again."""
    user, time_ms = _who(files, audience, row)
    done = audience.answer(np.array([row]), _padded([line["items"]], audience.spec.slots))
    events = [
        Event(
            user_id=user, item_id=str(files.item_id[item]), event=task, time_ms=time_ms, request_id=line["request_id"],
            id=f"{line['page']}-{slot}-{task}",
        )
        for slot, item in enumerate(line["items"])
        for task, label_S in zip(TASKS, done.label_KN, strict=True)
        if label_S[slot]
    ]  # fmt: skip
    if events:
        client.events(*events)


def _who(files: Files, audience: Audience, row: int) -> tuple[str, int]:
    """The user of a request, and its moment."""
    visits = audience.visits
    return str(files.user_id[int(visits.user_R[row])]), int(visits.time_R[row] + visits.start_ms)


def _numbers(answer: Recommendations) -> list[int]:
    return [int(item.item_id.removeprefix("i")) for item in answer.items]


def _pages(lines: list[dict[str, Any]], slots: int) -> Pages:
    chances = [[np.nan if chance is None else chance for chance in line["propensity"]] for line in lines]
    return Pages(_padded([line["items"] for line in lines], slots), _padded(chances, slots, fill=np.nan), lines)


def _padded(rows: list[list[Any]], slots: int, *, fill: float = EMPTY) -> Any:
    found = np.full((len(rows), slots), fill)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row[:slots]
    return found
