"""The BentoML service: `bentoml serve serving.service:Recommender` with RECSYS_BUNDLE naming a bundle, or RECSYS_SERVER a
settings file.

BentoML runs the worker processes and stops them; every request goes to the app of `serving.api`, before BentoML's own routes.
A worker takes connections once its bundle is loaded and warm, and on SIGTERM it answers what it has begun.
"""

import gc
import os
from typing import Any, cast

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api import protocol
from serving.api.app import make_app
from serving.endpoint import Endpoint
from serving.models.deployment import read
from serving.models.loading import check
from serving.processes import end_with_parent, oversee
from serving.run import WORKERS_VARIABLE, settings_of_environment
from serving.starting import check_start


@bentoml.service(
    workers=int(os.environ.get(WORKERS_VARIABLE, "1")),
    threads=4,
    traffic={"timeout": 30},
    metrics={"enabled": False},  # labels by raw path grow without end; serving.api has its own
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},  # spans that nobody exports: 105 of the 113 microseconds of BentoML's layers
    http={"host": "127.0.0.1", "port": 3000},  # what a bare `bentoml serve` listens on; --host and --port override
)
class Recommender:
    @bentoml.on_deployment
    @staticmethod
    def before_workers() -> None:
        """Runs once: BentoML would restart a worker that cannot start, because of a bundle or a setting, for ever."""
        oversee()
        settings = settings_of_environment()
        check_start(settings)
        check(read(settings.live))

    def __init__(self) -> None:
        end_with_parent()
        settings = settings_of_environment()
        self.endpoint = Endpoint(settings)
        self.app = make_app(self.endpoint)
        protocol.connect(self.app, settings)
        self.endpoint.models.after_swap = calm_collector
        gc.set_threshold(50_000, 20, 100)
        calm_collector()

    @bentoml.on_shutdown
    async def close(self) -> None:
        await self.endpoint.close()


class Front:
    """Hands every HTTP request to the app of this process."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await bentoml.get_current_service().app(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def calm_collector() -> None:
    """Keep full collections from walking the loaded models, which is what makes the tail of latencies long."""
    gc.collect()
    gc.freeze()


cast(Any, Recommender).add_asgi_middleware(Front)
protocol.install()
