"""A real server answers over HTTP as the bundle does without one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_bundle import NUM_CANDIDATES

from serving.bundle.bundle import Bundle
from serving.client import ask
from serving.recommend import recommend
from serving.run import running_service
from serving.schema import Query


@pytest.fixture(scope="module")
def url(bundle_folder: Path) -> Iterator[str]:
    with running_service(bundle_folder) as url:
        yield url


@pytest.mark.parametrize(
    "query",
    [
        {"user_id": "user-3"},
        {"user_id": "user-3", "k": NUM_CANDIDATES, "filter_seen": False},
        {"history": ["item-3", "gone"], "exclude": ["item-1"], "k": 7},
    ],
)
def test_served_as_computed(url: str, bundle_folder: Path, query: dict) -> None:
    answer, alone = ask(url, **query), recommend(Bundle.load(bundle_folder), Query(**query)).model_dump()
    assert answer == {**alone, "request_id": answer["request_id"], "arm": "live"}
    assert len(answer["items"]) == query.get("k", 10)


def test_exclusions_hold(url: str) -> None:
    first = [item["item_id"] for item in ask(url, user_id="user-5", k=10)["items"]]
    second = [item["item_id"] for item in ask(url, user_id="user-5", k=10, exclude=first)["items"]]
    assert len(set(second)) == 10
    assert not set(first) & set(second)


def test_many_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: ask(url, user_id=f"user-{number % 12}"), range(96)))
    alone = [ask(url, user_id=f"user-{number}")["items"] for number in range(12)]
    assert [answer["items"] for answer in answers] == alone * 8
