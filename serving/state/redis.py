"""The shared store: a Redis server, one round trip for reading and one for writing, each one script and so atomic.

Keys, for a user U: `recsys:events:U` (sorted set: id by time), `recsys:data:U` (hash: id -> the event as JSON, all of
which a reader gets as one text, since Python takes longer over many short replies),
`recsys:gone:U` (sorted set: ids of events that were trimmed, by when), `recsys:forgotten:U` (a moment); for a journal J:
`recsys:marks:J` (hash: file -> offset). The scripts make keys from arguments: one server, no cluster.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from recsys.errors import InputError
from serving.state.store import GONE_KEPT_MS, GONE_MAX, Live, LiveEvent, Mark, StoreDownError

CONNECTIONS = 32  # of a process; further questions wait for one
CLOSED_S = 1.0  # after a failure nothing is asked for so long
NO_MARK = ("", "", 0, 0)
WHOLE = ""  # the field of `marks` that says that the store is a whole view of its journal

READ = """
local events = table.concat(redis.call('hvals', 'recsys:data:' .. ARGV[1]), ',')
return {'[' .. events .. ']', redis.call('get', 'recsys:forgotten:' .. ARGV[1]),
        redis.call('hexists', 'recsys:marks:' .. ARGV[2], '')}
"""
KNOWN = """
local known = {}
for place = 1, #ARGV, 2 do
  local user, id = ARGV[place], ARGV[place + 1]
  local is_there = redis.call('zscore', 'recsys:events:' .. user, id) or redis.call('zscore', 'recsys:gone:' .. user, id)
  known[#known + 1] = is_there and 1 or 0
end
return known
"""
MARK = """
local function mark(journal, file, begin, offset)
  if journal == '' then return end
  local key = 'recsys:marks:' .. journal
  local before = tonumber(redis.call('hget', key, file) or 0)
  if tonumber(begin) <= before and before < tonumber(offset) then redis.call('hset', key, file, offset) end
end
"""
MARK_WHOLE = """
local key = 'recsys:marks:' .. ARGV[1]
for place = 2, #ARGV, 2 do
  if tonumber(redis.call('hget', key, ARGV[place]) or 0) < tonumber(ARGV[place + 1]) then return 0 end
end
redis.call('hset', key, '', 1)
return 1
"""
ADD = (
    MARK
    + """
local now, ttl, max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept, kept_max = tonumber(ARGV[4]), tonumber(ARGV[5])
local added = {}
for place = 10, #ARGV, 5 do
  local user, id, time, received, data = ARGV[place], ARGV[place + 1], ARGV[place + 2], ARGV[place + 3], ARGV[place + 4]
  local events, whole, gone = 'recsys:events:' .. user, 'recsys:data:' .. user, 'recsys:gone:' .. user
  local forgotten = tonumber(redis.call('get', 'recsys:forgotten:' .. user) or -1)
  local before = redis.call('hget', whole, id)
  if math.min(tonumber(time), tonumber(received)) <= forgotten or before or redis.call('zscore', gone, id) then
    added[#added + 1] = before == data and 1 or 0
  else
    added[#added + 1] = 1
    redis.call('zadd', events, time, id)
    redis.call('hset', whole, id, data)
    local over = redis.call('zcard', events) - max
    if over > 0 then
      local popped = redis.call('zpopmin', events, over)
      for each = 1, #popped, 2 do
        redis.call('hdel', whole, popped[each])
        redis.call('zadd', gone, now, popped[each])
      end
      redis.call('zremrangebyscore', gone, '-inf', '(' .. string.format('%d', now - kept))
      redis.call('zremrangebyrank', gone, 0, -kept_max - 1)
      redis.call('pexpire', gone, kept)
    end
    local left = ttl + math.min(tonumber(received), now) - now
    local has = redis.call('pttl', events)
    if has < 0 or left > has then
      redis.call('pexpire', events, math.max(left, 1))
      redis.call('pexpire', whole, math.max(left, 1))
    end
  end
end
mark(ARGV[6], ARGV[7], ARGV[8], ARGV[9])
return added
"""
)
FORGET = (
    MARK
    + """
local user, at = ARGV[1], tonumber(ARGV[2])
local events, whole, key = 'recsys:events:' .. user, 'recsys:data:' .. user, 'recsys:forgotten:' .. user
if at > tonumber(redis.call('get', key) or -1) then redis.call('set', key, ARGV[2]) end
redis.call('del', 'recsys:gone:' .. user)
local all, deleted = redis.call('hgetall', whole), 0
for place = 1, #all, 2 do
  local received, time = string.match(all[place + 1], '^%[(%d+),(%d+)')
  if math.min(tonumber(received), tonumber(time)) <= at then
    redis.call('hdel', whole, all[place])
    redis.call('zrem', events, all[place])
    deleted = deleted + 1
  end
end
mark(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return deleted
"""
)


class RedisStore:
    def __init__(self, url: str, *, max_events: int = 500, ttl_s: int = 30 * 86_400, timeout_s: float = 0.05) -> None:
        """`timeout_s`: of a read; a write has ten times as long. The server need not be there yet. Raises InputError."""
        self.max_events, self.ttl_ms, self.timeout_s = max_events, ttl_s * 1000, timeout_s
        try:
            self._pool = BlockingConnectionPool.from_url(
                url, max_connections=CONNECTIONS, socket_connect_timeout=max(timeout_s, 0.05), protocol=2
            )
        except ValueError as error:
            raise InputError(
                f"state is the url of no Redis server ({_kind(error)}): write redis://host:6379/0, or sqlite"
            ) from None  # the error may quote the password
        self._pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
        self._redis: Redis = Redis(connection_pool=self._pool)
        self._read, self._add, self._forget = (self._redis.register_script(text) for text in (READ, ADD, FORGET))
        self._known = self._redis.register_script(KNOWN)
        self._mark_whole = self._redis.register_script(MARK_WHOLE)
        self._closed_until = 0.0

    async def recent(self, user_id: str, journal: str | None = None) -> Live:
        found, forgotten, whole = await self._ask(self._read(args=[user_id, journal or ""]), self.timeout_s)
        events = (
            LiveEvent(id, item_id, event, time_ms, request_id, received_ms)
            for received_ms, time_ms, id, item_id, event, request_id in sorted(json.loads(found), key=itemgetter(1, 2))
        )
        return Live(tuple(events), None if forgotten is None else int(forgotten), journal is None or bool(whole))

    async def known(self, events: Sequence[tuple[str, str]]) -> list[bool]:
        pairs = [part for each in events for part in each]
        return [known == 1 for known in await self._ask(self._known(args=pairs), self.timeout_s)]

    async def add(self, events: Sequence[tuple[str, LiveEvent]], mark: Mark | None = None) -> list[bool]:
        bounds: list[Any] = [_now_ms(), self.ttl_ms, self.max_events, GONE_KEPT_MS, GONE_MAX, *(mark or NO_MARK)]
        rows = [part for user, each in events for part in (user, each.id, each.time_ms, each.received_ms, _data(each))]
        return [new == 1 for new in await self._ask(self._add(args=bounds + rows), 10 * self.timeout_s)]

    async def forget(self, user_id: str, now_ms: int, mark: Mark | None = None) -> int:
        return int(await self._ask(self._forget(args=[user_id, now_ms, *(mark or NO_MARK)]), 10 * self.timeout_s))

    async def marks(self, journal: str) -> tuple[dict[str, int], bool]:
        found = await self._ask(self._redis.hgetall(f"recsys:marks:{journal}"), 10 * self.timeout_s)
        marks = {file.decode(): int(offset) for file, offset in found.items()}
        return marks, marks.pop(WHOLE, None) is not None

    async def mark_whole(self, journal: str, applied: Mapping[str, int]) -> bool:
        pairs = [part for pair in applied.items() for part in pair]
        return bool(await self._ask(self._mark_whole(args=[journal, *pairs]), 10 * self.timeout_s))

    async def ping(self) -> None:
        await self._ask(self._redis.ping(), self.timeout_s)

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.aclose()

    async def _ask(self, command: Any, timeout_s: float) -> Any:
        """The reply; StoreDownError for whatever is wrong with it, and for a second without asking."""
        if time.monotonic() < self._closed_until:
            command.close()
            raise StoreDownError("the Redis server did not answer a moment ago")
        try:
            async with asyncio.timeout(timeout_s):
                return await command
        except (RedisError, OSError, TimeoutError) as error:
            self._closed_until = time.monotonic() + CLOSED_S
            raise StoreDownError(f"the Redis server does not answer as it should ({_kind(error)})") from None


def _data(each: LiveEvent) -> str:
    """The two moments stand first, where the script reads them."""
    return json.dumps(
        [each.received_ms, each.time_ms, each.id, each.item_id, each.event, each.request_id], separators=(",", ":")
    )


def _kind(error: Exception) -> str:
    """What went wrong without the message, which may quote an address with its password."""
    return type(error).__name__


def _now_ms() -> int:
    return int(time.time() * 1000)
