"""How many requests one caller may send: a token bucket for each second, a count for each day.

Token bucket as in ATM traffic shaping (Turner 1986) and RFC 2697 (https://www.rfc-editor.org/rfc/rfc2697): it holds up to one
second's worth of tokens (at least one), fills with `requests_per_s`, and each request takes one. Each worker process counts for
itself and grants its even share of a limit; a caller who keeps one connection talks to one worker, and so gets that share.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from http import HTTPStatus

from serving.api.refused import RefusedError

MAX_CALLERS = 10_000  # whose counts are kept; the one not heard from for longest is dropped
DAY_S = 86_400


@dataclass(slots=True)
class Count:
    tokens: float
    at_s: float
    day: int
    today: int


class Limits:
    def __init__(self, *, share: float = 1.0) -> None:
        """`share`: of every limit that this process grants."""
        self.share = share
        self._counts: OrderedDict[str, Count] = OrderedDict()

    def take(self, caller: str, now_s: float, *, requests_per_s: float, requests_per_day: int) -> None:
        """Count a request at `now_s`, in seconds since 1970. 0: no limit. Raises RefusedError with the time to wait."""
        if not requests_per_s and not requests_per_day:
            return
        rate = requests_per_s * self.share
        capacity, day = max(1.0, rate), int(now_s // DAY_S)
        count = self._counts.get(caller)
        if count is None:
            count = self._counts[caller] = Count(capacity, now_s, day, 0)
            if len(self._counts) > MAX_CALLERS:
                self._counts.popitem(last=False)
        else:
            self._counts.move_to_end(caller)
        if count.day != day:
            count.day, count.today = day, 0
        if requests_per_day and count.today >= max(1, requests_per_day * self.share):
            wait_s = math.ceil((day + 1) * DAY_S - now_s)
            raise _too_many(f"{requests_per_day} requests a day are allowed, and were sent", wait_s)
        if requests_per_s:
            count.tokens = min(capacity, count.tokens + max(0.0, now_s - count.at_s) * rate)
            count.at_s = now_s
            if count.tokens < 1:
                wait_s = math.ceil((1 - count.tokens) / rate)
                raise _too_many(f"{requests_per_s:g} requests per second are allowed", wait_s)
            count.tokens -= 1
        count.today += 1


def _too_many(what: str, wait_s: int) -> RefusedError:
    sentence = f"{what}: try again in {wait_s} s"
    return RefusedError(HTTPStatus.TOO_MANY_REQUESTS, sentence, retry_after_s=wait_s)
