"""The table of routes: what is dispatched and what /docs.json says are both made of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from recsys.spec import Spec
from serving.answers import Accepted, Alive, Deployed, Forgotten, Health, Info, Ranked, Recommendations, Similar
from serving.api import handlers
from serving.api.handlers import Call, Desk
from serving.api.keys import Scope
from serving.api.reply import Reply
from serving.schema import Body, CanaryOrder, DeployOrder, Events, Query, RankQuery, RollbackOrder, SimilarQuery


@dataclass(frozen=True)
class Route:
    """`path`: as clients send it; one that ends in a name in braces takes any text there. `scope`: None for anybody."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    handler: Callable[[Desk, Call], Awaitable[Reply]]
    scope: Scope | None
    body: type[Body] | None = None
    answer: type[Spec] | str = "text/plain"  # a class of JSON, or a media type
    may_wait: bool = False  # 503 is among its answers
    timed: bool = True  # has to answer in the time that requests get

    @property
    def prefix(self) -> str | None:
        return self.path[: self.path.index("{")] if "{" in self.path else None


ROUTES = (
    Route("POST", "/recommend", "The k best items for a user or a history", handlers.recommend, "read",
          Query, Recommendations, may_wait=True),
    Route("POST", "/rank", "Given items, best first for a user or a history", handlers.rank, "read",
          RankQuery, Ranked, may_wait=True),
    Route("POST", "/similar", "The k items most like one", handlers.similar, "read", SimilarQuery, Similar),
    Route("POST", "/events", "Tell what users did; it counts from the next list on", handlers.events, "write",
          Events, Accepted, may_wait=True),
    Route("DELETE", "/users/{user_id}", "Forget a user's events", handlers.forget, "write", None, Forgotten, may_wait=True),
    Route("GET", "/info", "Where answers come from, from the raw data's hash to this process", handlers.about, "read",
          None, Info),
    Route("GET", "/metrics", "Numbers for Prometheus", handlers.metrics, "read"),
    Route("GET", "/healthz", "Whether lists can be made, by which model", handlers.healthz, None, None, Health, may_wait=True),
    Route("GET", "/readyz", "The same, for load balancers", handlers.readyz, None, None, Health, may_wait=True),
    Route("GET", "/livez", "Whether the process answers", handlers.livez, None, None, Alive),
    Route("GET", "/docs.json", "This document", handlers.document, None, None, "application/json"),
    Route("GET", "/admin/deployment", "Which versions are live, previous and canary", handlers.deployment, "admin",
          None, Deployed),
    Route("POST", "/admin/rollback", "Make the previous version the live one", handlers.rollback, "admin",
          RollbackOrder, Deployed, timed=False),
    Route("POST", "/admin/deploy", "Make a version the live one", handlers.deploy, "admin", DeployOrder, Deployed, timed=False),
    Route("POST", "/admin/canary", "Give a share of the users another version", handlers.canary, "admin",
          CanaryOrder, Deployed, timed=False),
    Route("POST", "/admin/promote-canary", "Make the canary the live version", handlers.promote_canary, "admin",
          RollbackOrder, Deployed, timed=False),
)  # fmt: skip


def page_routes(paths: Sequence[str]) -> list[Route]:
    """A route for each file of the page."""
    return [Route("GET", path, "The page", handlers.page, None, None, "text/html") for path in paths]
