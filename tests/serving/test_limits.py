"""Rate limits, quotas and full queues: who is told to wait, and for how long."""

import asyncio
from pathlib import Path

import pytest
from wire import Answer, ask_app, own_endpoint, send

from serving.api.app import App, make_app
from serving.api.guard import _network
from serving.api.keys import add_key
from serving.api.limits import MAX_CALLERS, Limits
from serving.api.refused import RefusedError
from serving.run import running_service

NOON = 20_000 * 86_400 + 43_200.0  # seconds since 1970


def taken(limits: Limits, times: list[float], caller: str = "a", per_s: float = 0, per_day: int = 0) -> list[int]:
    """For each time 0 where the request passes, else the seconds to wait."""
    waits = []
    for each in times:
        try:
            limits.take(caller, each, requests_per_s=per_s, requests_per_day=per_day)
            waits.append(0)
        except RefusedError as error:
            waits.append(int(error.headers["retry-after"]))
    return waits


def test_a_bucket_holds_one_second_and_fills_again() -> None:
    limits = Limits()
    assert taken(limits, [NOON] * 5, per_s=3) == [0, 0, 0, 1, 1]
    assert taken(limits, [NOON + 0.34, NOON + 0.35, NOON + 10, NOON + 10, NOON + 10, NOON + 10], per_s=3) == [0, 1, 0, 0, 0, 1]


def test_less_than_one_a_second_is_a_longer_wait() -> None:
    assert taken(Limits(), [NOON, NOON, NOON + 9, NOON + 10], per_s=0.1) == [0, 10, 1, 0]


def test_a_day_ends_at_midnight() -> None:
    waits = taken(Limits(), [NOON, NOON, NOON, NOON + 43_199, NOON + 43_200], per_day=2)
    assert waits == [0, 0, 43_200, 1, 0]


def test_refused_requests_do_not_count_towards_the_day() -> None:
    limits = Limits()
    assert taken(limits, [NOON] * 4, per_s=1, per_day=2) == [0, 1, 1, 1]
    assert taken(limits, [NOON + 5], per_s=1, per_day=2) == [0]


def test_a_clock_that_goes_back_gives_and_takes_nothing() -> None:
    assert taken(Limits(), [NOON, NOON - 100, NOON - 99], per_s=1) == [0, 1, 0]


def test_callers_do_not_share_and_workers_do() -> None:
    limits = Limits(share=0.5)
    assert taken(limits, [NOON] * 4, per_s=4) == [0, 0, 1, 1]
    assert taken(limits, [NOON] * 2, caller="b", per_s=4) == [0, 0]


def test_what_is_remembered_is_bounded() -> None:
    limits = Limits()
    for number in range(MAX_CALLERS + 100):
        limits.take(str(number), NOON, requests_per_s=1, requests_per_day=0)
    assert len(limits._counts) == MAX_CALLERS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("10.0.0.1", "10.0.0.2", False), ("2001:db8::1", "2001:db8::ffff:1", True), ("2001:db8:0:1::1", "2001:db8:0:2::1", False)],
)
def test_an_ipv6_customer_is_one_caller(one: str, other: str, same: bool) -> None:
    assert (_network((one, 1)) == _network((other, 2))) == same


def test_a_server_limits_each_key_by_itself(bundle_folder: Path, tmp_path: Path) -> None:
    slow = add_key(tmp_path, "slow", ["read"], requests_per_s=0.5)
    free = add_key(tmp_path, "free", ["read"], requests_per_s=0)
    with running_service(bundle_folder, live=tmp_path, keys=True, requests_per_s=2) as url:
        assert [send(url, "GET", "/info", X_API_Key=slow).status for _ in range(2)] == [200, 429]
        answer = send(url, "GET", "/info", X_API_Key=slow)
        assert answer.headers["retry-after"] in ("1", "2")
        assert answer.error.startswith("0.5 requests per second are allowed: try again in ")
        assert all(send(url, "GET", "/info", X_API_Key=free).status == 200 for _ in range(10))
        guesses = [send(url, "GET", "/info", X_API_Key="rsk_guess").status for _ in range(5)]
        assert guesses.count(429) >= 2
        behind = send(url, "GET", "/info", X_API_Key="rsk_guess", X_Forwarded_For="192.0.2.7")
        assert behind.status == 401  # another caller behind a proxy on this machine
        assert all(send(url, "GET", "/livez").status == 200 for _ in range(10))


def test_a_full_queue_is_said_at_once(bundle_folder: Path, tmp_path: Path) -> None:
    async def asked(app: App) -> list[Answer]:
        return await asyncio.gather(*(ask_app(app, "POST", "/recommend", b'{"user_id": "user-1"}') for _ in range(6)))

    with own_endpoint(bundle_folder, tmp_path, max_queue=1) as endpoint:
        answers = asyncio.run(asked(make_app(endpoint)))
    refused = [answer for answer in answers if answer.status != 200]
    assert 1 <= len(refused) < 6
    for answer in refused:
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.error == "1 requests wait already: try again in a second"
