"""The least that could serve the same graphs: Starlette on uvicorn, JSON in, the same ONNX calls, JSON out.

No state, no checks, no filters but what was seen, no batching, nothing logged. Histories are looked up in arrays made before.
`inline`: the calls in the event loop, nothing else meanwhile; `threads`: in a pool of two threads, so that both cores can work.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serving.bundle.bundle import Bundle
from serving.cascade.asked import resolve
from serving.schema import Query
from serving.state.store import Live


def inputs(bundle: Bundle, users: list[str]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What the retrieval and the ranking graph read for each user; the candidates are still missing."""
    found = {}
    for user in users:
        asked = resolve(bundle, Query(user_id=user), Live())
        history_1L, length_1 = asked.history_L[None], np.array([len(asked.history_L)])
        exclude_1E = asked.exclude_E[None]
        retrieval = {"history": history_1L, "length": length_1, "exclude": exclude_1E, "bias": bundle.no_bias_1I}
        ranking = {"user": np.array([asked.user]), "history": history_1L, "length": length_1}
        if bundle.facts.context:
            ranking["context"] = asked.context_F[None]
        found[user] = retrieval, ranking
    return found


def graphs(bundle: Bundle, given: tuple[dict[str, Any], dict[str, Any]]) -> tuple[Any, Any]:
    """item_1K and probability_1KT: the calls that the endpoint makes too."""
    retrieval, ranking = given
    item_1K, _ = bundle.retrieval(retrieval)
    assert bundle.ranking is not None
    [probability_1KT] = bundle.ranking.run(["probability"], {**ranking, "item": item_1K})
    return item_1K, probability_1KT


def answer(bundle: Bundle, given: tuple[dict[str, Any], dict[str, Any]], k: int) -> list[int]:
    """Items by value."""
    item_1K, probability_1KT = graphs(bundle, given)
    value_K = bundle.value(probability_1KT[0])
    return list(item_1K[0, np.argsort(-value_K)[:k]].tolist())


def make_app(bundle: Bundle, users: list[str], way: str) -> Starlette:
    given, pool = inputs(bundle, users), ThreadPoolExecutor(2)

    async def recommend(request: Request) -> JSONResponse:
        query = await request.json()
        asked = given[query["user_id"]]
        if way == "inline":
            items = answer(bundle, asked, query["k"])
        else:
            items = await asyncio.get_running_loop().run_in_executor(pool, answer, bundle, asked, query["k"])
        return JSONResponse({"items": [bundle.item_id(item) for item in items]})

    return Starlette(routes=[Route("/recommend", recommend, methods=["POST"])])


def main(folder: str, users_file: str, way: str, port: str) -> None:
    import uvicorn

    bundle, users = Bundle.load(Path(folder)), Path(users_file).read_text().split()
    uvicorn.run(make_app(bundle, users, way), host="127.0.0.1", port=int(port), log_level="error", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
