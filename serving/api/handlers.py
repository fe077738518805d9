"""What each route does with a checked body: a few lines between HTTP and the endpoint."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from recsys.errors import InputError
from serving.answers import Alive, Health
from serving.api.info import deployed, info
from serving.api.metrics import MEDIA_TYPE, Metrics
from serving.api.page import Page
from serving.api.refused import RefusedError
from serving.api.reply import Reply, as_json, as_text
from serving.endpoint import Endpoint
from serving.journal.journal import JournalDownError
from serving.models import admin
from serving.models.deployment import Deployment, read
from serving.schema import MAX_TEXT, CanaryOrder, DeployOrder, Events, Query, RankQuery, SimilarQuery
from serving.state.store import StoreDownError


@dataclass(frozen=True)
class Desk:
    """What handlers have at hand."""

    endpoint: Endpoint
    metrics: Metrics
    page: Page
    document: bytes  # the OpenAPI document


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may pass. `body`: of the class that the route names."""

    body: Any
    path: str
    raw_path: bytes
    headers: dict[bytes, bytes]


async def recommend(desk: Desk, call: Call) -> Reply:
    query: Query = call.body
    return as_json(await desk.endpoint.recommend(query))


async def rank(desk: Desk, call: Call) -> Reply:
    query: RankQuery = call.body
    return as_json(await desk.endpoint.rank(query))


async def similar(desk: Desk, call: Call) -> Reply:
    query: SimilarQuery = call.body
    return as_json(await desk.endpoint.similar(query))


async def events(desk: Desk, call: Call) -> Reply:
    posted: Events = call.body
    try:
        return as_json(await desk.endpoint.add(posted))
    except (JournalDownError, StoreDownError) as error:
        raise _not_now("events cannot be stored") from error


async def forget(desk: Desk, call: Call) -> Reply:
    user_id = _last_part(call.raw_path)
    try:
        return as_json(await desk.endpoint.forget(user_id))
    except (JournalDownError, StoreDownError) as error:
        raise _not_now("the state does not answer, nothing was deleted") from error


async def livez(desk: Desk, call: Call) -> Reply:
    return as_json(Alive(status="ok"))


async def healthz(desk: Desk, call: Call) -> Reply:
    if not desk.endpoint.ready:
        raise _not_now("the server is about to stop")
    bundle = desk.endpoint.models.live
    return as_json(Health(status="ok", model=bundle.name, version=bundle.version))


async def readyz(desk: Desk, call: Call) -> Reply:
    await desk.endpoint.state.ready()
    if not desk.endpoint.models.ready:
        raise _not_now("no model is loaded")
    return await healthz(desk, call)


async def about(desk: Desk, call: Call) -> Reply:
    return as_json(info(desk.endpoint))


async def metrics(desk: Desk, call: Call) -> Reply:
    return as_text(await asyncio.to_thread(desk.metrics.page), MEDIA_TYPE)


async def document(desk: Desk, call: Call) -> Reply:
    return as_text(desk.document, "application/json")


async def page(desk: Desk, call: Call) -> Reply:
    return desk.page.get(call.path, call.headers)


async def deployment(desk: Desk, call: Call) -> Reply:
    return as_json(deployed(desk.endpoint, read(desk.endpoint.settings.live)))


async def rollback(desk: Desk, call: Call) -> Reply:
    return await _changed(desk, admin.rollback)


async def deploy(desk: Desk, call: Call) -> Reply:
    order: DeployOrder = call.body
    return await _changed(desk, admin.deploy, order.version)


async def promote_canary(desk: Desk, call: Call) -> Reply:
    return await _changed(desk, admin.promote_canary)


async def canary(desk: Desk, call: Call) -> Reply:
    order: CanaryOrder = call.body
    if order.share == 0:
        return await _changed(desk, admin.remove_canary)
    return await _changed(desk, admin.set_canary, order.version, order.share)


async def _changed(desk: Desk, change: Callable[..., Deployment], *arguments: Any) -> Reply:
    """Changes read and check bundles, which takes seconds: in a thread, so that lists go on being made."""
    made = await asyncio.to_thread(change, desk.endpoint.settings.live, *arguments)
    return as_json(deployed(desk.endpoint, made))


def _not_now(reason: str) -> RefusedError:
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}: try again in a second", retry_after_s=1)


def _last_part(raw_path: bytes) -> str:
    """An id from the end of a path. It may hold any text, slashes too, where they are percent-encoded or not."""
    raw = raw_path.removeprefix(b"/users/")
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise InputError("user_id in the path is not UTF-8: percent-encode the bytes of its UTF-8 text") from error
    if not 0 < len(text) <= MAX_TEXT:
        raise InputError(f"user_id in the path has {len(text)} characters: send 1 to {MAX_TEXT}")
    return text
