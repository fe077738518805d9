"""Where the answers of this process come from."""

import hashlib
import os
import socket
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from recsys.errors import InputError
from serving.answers import CanaryFacts, Deployed, Info, ModelInfo
from serving.bundle.bundle import Bundle
from serving.endpoint import Endpoint
from serving.models.deployment import Deployment, Placed, read

SHOWN_VALUES = 1_000  # of a feature
STARTED = datetime.now(UTC).isoformat(timespec="seconds")


def info(endpoint: Endpoint) -> Info:
    bundle, status = endpoint.models.live, endpoint.models.status
    return Info(
        model=bundle.name,
        version=bundle.version,
        lineage=bundle.lineage,
        deployment=_deployment(endpoint),
        models={place: _model(each) for place, each in endpoint.models.held.places.items()},
        parity_max_error=bundle.parity_max_error,
        providers=bundle.providers,
        replica=f"{_host()}-{os.getpid()}",
        started=STARTED,
        package=package(),
        state=endpoint.settings.state.split(":")[0],  # a url may hold a password
        refused=status["refused"],
        follow=status["follow"],
    )


def _deployment(endpoint: Endpoint) -> Deployed:
    """What the file says; where it cannot be read, which `refused` tells, what this process goes on with."""
    try:
        return deployed(endpoint, read(endpoint.settings.live))
    except InputError:
        held = endpoint.models.held
        canary = held.canary and CanaryFacts(version=held.canary.version, share=held.share)
        return Deployed(live=held.live.version, previous=held.previous and held.previous.version, canary=canary)


def deployed(endpoint: Endpoint, now: Deployment) -> Deployed:
    """What the deployment file says, which all workers follow within a second."""
    live = endpoint.models.live.version
    canary = now.canary and CanaryFacts(version=now.canary.version, share=now.canary.share)
    return Deployed(live=now.live.version or live, previous=_version(now.previous), canary=canary)


def _model(bundle: Bundle) -> ModelInfo:
    facts = bundle.facts
    return ModelInfo(
        name=bundle.name,
        version=bundle.version,
        tasks=list(facts.tasks),
        value=facts.value,
        context={name: list(values[:SHOWN_VALUES]) for name, values in facts.context.items()},
        category={name: list(values[:SHOWN_VALUES]) for name, values in facts.category.items()},
        max_history=facts.max_history,
        max_k=facts.num_candidates,
    )


def _version(placed: Placed | None) -> str | None:
    return placed.version if placed else None


@cache
def _host() -> str:
    """A hash: the name itself may say more about a network than callers should know."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


@cache
def package() -> str:
    try:
        return version("recsys")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
