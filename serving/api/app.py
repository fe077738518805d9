"""The HTTP side of a process: finds the route, checks who asks and what, and gives every error one shape.

An ASGI app with a dictionary for a router, since Starlette's routing and Request cost 40 microseconds on each request.
"""

import asyncio
import logging
import time
import uuid
from http import HTTPStatus
from urllib.parse import quote

from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from recsys.errors import InputError
from serving.api.body import check_media_type, read_body
from serving.api.guard import Guard
from serving.api.handlers import Call, Desk
from serving.api.metrics import Metrics
from serving.api.openapi import document
from serving.api.page import Page
from serving.api.refused import ClientGoneError, RefusedError
from serving.api.reply import Reply, refusal, send_reply
from serving.api.routes import ROUTES, Route, page_routes
from serving.batcher import QueueFullError
from serving.endpoint import Endpoint
from serving.schema import parse

logger = logging.getLogger("recsys.serving")
NO_ROUTE = "none"  # in place of the route in metrics


def make_app(endpoint: Endpoint) -> "App":
    return App(endpoint)


class App:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.settings = endpoint, endpoint.settings
        self.guard = Guard(endpoint.settings)
        self.metrics = Metrics(endpoint.models)
        page = Page()
        routes = [*ROUTES, *(page_routes(page.paths) if endpoint.settings.page else [])]
        self.desk = Desk(endpoint, self.metrics, page, document(ROUTES))
        self._exact: dict[tuple[str, str], Route] = {
            (route.method, route.path): route for route in routes if route.prefix is None
        }
        self._exact |= {("HEAD", path): route for (method, path), route in self._exact.items() if method == "GET"}
        self._prefixed = [route for route in routes if route.prefix is not None]
        self._known = ", ".join(f"{route.method} {route.path}" for route in ROUTES if route.scope != "admin")
        endpoint.observe = lambda found, bundle, stages_ms: self.metrics.served(
            found, bundle, stages_ms, endpoint.batcher.queue
        )
        endpoint.batcher.on_batch = self.metrics.batch.observe

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        began, route = time.perf_counter(), None
        try:
            route = self._exact.get((scope["method"], scope["path"])) or self._find(scope["method"], scope["path"])
            reply = await self._answer(route, scope, receive)
        except ClientGoneError:
            return
        except RefusedError as error:
            reply = refusal(error)
        except InputError as error:
            reply = refusal(RefusedError(HTTPStatus.BAD_REQUEST, str(error)))
        except QueueFullError as error:
            sentence = f"{error}: try again in a second"
            reply = refusal(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, sentence, retry_after_s=1))
        except Exception:
            request_id = uuid.uuid4().hex
            logger.exception("request %s to %s failed", request_id, route.path if route else NO_ROUTE)
            sentence = f"internal error: tell the server's owner the request id {request_id}"
            reply = refusal(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, sentence))
        await send_reply(send, reply)
        await asyncio.sleep(0)  # the answer leaves before it is counted
        self.metrics.request(route.path if route else NO_ROUTE, int(reply.status), time.perf_counter() - began)

    async def _answer(self, route: Route, scope: ASGIScope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        if route.scope is not None:
            self.guard.check(route.scope, headers, scope.get("client"))
        body, arrived = None, False
        try:
            async with asyncio.timeout(self.settings.request_timeout_s) as timer:
                if route.body is not None:
                    check_media_type(headers)
                    body = parse(route.body, await read_body(receive, self.settings.max_body_bytes))
                arrived = True
                if not route.timed:
                    timer.reschedule(None)
                return await route.handler(self.desk, Call(body, scope["path"], scope["raw_path"], headers))
        except TimeoutError as error:
            raise _too_slow(self.settings.request_timeout_s, arrived=arrived) from error

    def _find(self, method: str, path: str) -> Route:
        """The route of a path that takes text. Raises RefusedError: 404, or 405 with the methods that there are."""
        allowed = [known for known, exact in self._exact if exact == path]
        for route in self._prefixed:
            if path.startswith(str(route.prefix)) and len(path) > len(str(route.prefix)):
                if route.method == method:
                    return route
                allowed.append(route.method)
        status = HTTPStatus.METHOD_NOT_ALLOWED if allowed else HTTPStatus.NOT_FOUND
        shown = f"{method[:20]} {quote(path[:100])}"  # quoted: a path may hold any character
        sentence = f"{shown} gives {int(status)} {status.phrase}: the routes are {self._known}"
        if allowed:
            raise RefusedError(status, sentence, allow=", ".join(sorted(set(allowed))))
        raise RefusedError(status, sentence)


def _too_slow(seconds: float, *, arrived: bool) -> RefusedError:
    if arrived:
        sentence = f"no answer within {seconds:g} s: try again"
        return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, sentence, retry_after_s=1)
    sentence = f"the body did not arrive within {seconds:g} s: send it faster"
    return RefusedError(HTTPStatus.REQUEST_TIMEOUT, sentence, connection="close")
