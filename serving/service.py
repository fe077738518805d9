"""The BentoML service: `bentoml serve serving.service:Recommender` with RECSYS_BUNDLE naming the bundle."""

import gc
import os
from pathlib import Path
from typing import Any, cast

import bentoml
from starlette.responses import JSONResponse

from recsys.artefact import read_manifest
from recsys.errors import InputError
from serving.bundle import Bundle
from serving.edge import Edge
from serving.recommend import Query, Recommendations, UnknownUserError, recommend
from serving.run import BUNDLE_VARIABLE, WORKERS_VARIABLE

DEFAULT_BUNDLE = "runs/demo/bundle"


def bundle_folder() -> Path:
    return Path(os.environ.get(BUNDLE_VARIABLE, DEFAULT_BUNDLE))


@bentoml.service(
    workers=int(os.environ.get(WORKERS_VARIABLE, "1")),
    threads=4,
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    http={"host": "127.0.0.1", "port": 3000},  # what a bare `bentoml serve` listens on; --host and --port override
)
class Recommender:
    @bentoml.on_deployment
    @staticmethod
    def check_bundle() -> None:
        """Runs once, before any worker: without it BentoML restarts a worker that cannot load its bundle for ever."""
        read_manifest(bundle_folder(), "bundle")

    def __init__(self) -> None:
        self.bundle = Bundle.load(bundle_folder())
        # Full collections that walk the loaded model are what makes the tail of latencies long.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    @bentoml.api
    def recommend(self, query: Query, /) -> Recommendations:
        """The k best items for a known user or for a history of items."""
        try:
            return recommend(self.bundle, query)
        except InputError as error:
            # A raised error would be logged with its traceback and answered in another shape; a response passes as it is.
            status = 404 if isinstance(error, UnknownUserError) else 400
            return cast(Recommendations, JSONResponse({"error": str(error)}, status))


def health() -> dict[str, str]:
    bundle = bentoml.get_current_service().bundle
    return {"status": "ok", "model": bundle.name, "version": bundle.version}


cast(Any, Recommender).add_asgi_middleware(Edge, health=health)
