"""The endpoint without HTTP: the catalogue, given items, similar items, and a model that fails while others wait."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import onnxruntime as ort
import pytest
from tiny_bundle import POPULAR_P, item_text

from recsys.errors import InputError
from serving.endpoint import Endpoint
from serving.models.deployment import Deployment, Placed, write
from serving.schema import Event, Events, Query, RankQuery, SimilarQuery
from serving.settings import Settings

Got = TypeVar("Got")
Run = Callable[[Callable[[Endpoint], Awaitable[Got]]], Got]


@pytest.fixture
def run(bundle_folder: Path, tmp_path: Path) -> Run:
    """Calls a coroutine with an endpoint of its own."""
    live = tmp_path / "live"
    write(Deployment(live=Placed(folder=bundle_folder)), live)
    (tmp_path / "sold.csv").write_text("item_id,in_stock\n" + "".join(f"{item_text(item)},false\n" for item in range(2, 12)))

    def called(ask: Callable[[Endpoint], Awaitable[Got]]) -> Got:
        async def inside() -> Got:
            endpoint = Endpoint(Settings(live=live, catalogue=tmp_path / "sold.csv"))
            try:
                return await ask(endpoint)
            finally:
                await endpoint.close()

        return asyncio.run(inside())

    return called


def test_the_catalogue_holds_for_lists_and_similar_items_and_not_for_given_ones(run: Run) -> None:
    sold_out = {item_text(item) for item in range(2, 12)}

    async def ask(endpoint: Endpoint) -> tuple[set[str], set[str], set[str]]:
        lists = await endpoint.recommend(Query(history=["item-30"], k=20))
        like = await endpoint.similar(SimilarQuery(item_id="item-3", k=40))
        given = await endpoint.rank(RankQuery(history=["item-30"], items=["item-1", "item-20"]))
        return tuple({item.item_id for item in found.items} for found in (lists, like, given))

    lists, like, given = run(ask)
    assert len(lists) == 20
    assert not lists & sold_out
    assert like == {item_text(item) for item in range(12, 42)}
    assert given == {"item-1", "item-20"}


def test_a_posted_event_counts_for_given_items(run: Run) -> None:
    async def ask(endpoint: Endpoint) -> tuple[list[str], list[str]]:
        query = RankQuery(user_id="new", items=["item-1"])
        before = await endpoint.rank(query)
        await endpoint.add(Events(events=[Event(user_id="new", item_id="item-7")]))
        after = await endpoint.rank(query)
        assert before.items[0].tasks != after.items[0].tasks  # the tiny ranker counts the history
        return before.flags, after.flags

    assert run(ask) == (["unknown_user"], [])


def test_a_version_that_is_not_there_is_refused(run: Run) -> None:
    async def ask(endpoint: Endpoint) -> None:
        for asked in (
            endpoint.similar(SimilarQuery(item_id="item-3", version="v0")),
            endpoint.rank(RankQuery(history=["item-1"], items=["item-3"], version="v0")),
        ):
            with pytest.raises(InputError, match="version is 'v0'"):
                await asked

    run(ask)


def test_a_model_that_fails_gives_k_items_to_all_who_wait(run: Run, make_bundle: Callable[..., Path]) -> None:
    """The ranking graph of another bundle wants a context that this one does not give."""
    other = ort.InferenceSession(make_bundle(context=("hour",)) / "ranking.onnx")

    async def ask(endpoint: Endpoint) -> None:
        held = endpoint.models._held
        endpoint.models._held = dataclasses.replace(held, live=dataclasses.replace(held.live, ranking=other))
        queries = [Query(user_id=f"user-{user}", k=5 + user) for user in range(6)]
        for query, found in zip(queries, await asyncio.gather(*map(endpoint.recommend, queries)), strict=True):
            assert len({item.item_id for item in found.items}) == query.k
            assert found.flags == ["model_failed"]
            assert found.items[0].source == "session"
        cold = await endpoint.recommend(Query(user_id="nobody", k=3))
        assert cold.flags == ["unknown_user"]  # the graphs were not asked
        assert [item.item_id for item in cold.items] == [item_text(item) for item in POPULAR_P if item >= 12][:3]

    run(ask)
