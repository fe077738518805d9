"""Where the tasks of a build run: in this process, in processes of this machine or on a Ray cluster, with the same results."""

from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from recsys.data.engines.pool import Pool, Progress
from recsys.data.engines.processes import Processes
from recsys.data.engines.ray import Ray
from recsys.data.engines.threads import Threads
from recsys.errors import InputError

__all__ = ["Engine", "Pool", "Processes", "Progress", "Ray", "Threads", "engine"]

Engine = Annotated[Threads | Processes | Ray, Field(discriminator="kind")]
KINDS = {spec.model_fields["kind"].default: spec for spec in get_args(get_args(Engine)[0])}


def engine(kind: str = "threads", *, workers: int | None = None, address: str | None = None) -> Threads | Processes | Ray:
    """The engine that the command line names. Raises InputError for an unknown kind or a word that the kind has no use for."""
    if kind not in KINDS:
        raise InputError(f"--engine {kind} is unknown: choose one of {', '.join(KINDS)}")
    words: dict[str, Any] = {"workers": workers, "address": address}
    given = {name: value for name, value in words.items() if value is not None}
    for name in given:
        if name not in KINDS[kind].model_fields:
            fitting = " or ".join(other for other, spec in KINDS.items() if name in spec.model_fields)
            raise InputError(f"--{name} has no use with --engine {kind}: leave it out, or take --engine {fitting}")
    try:
        return TypeAdapter[Threads | Processes | Ray](Engine).validate_python({"kind": kind, **given})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][-1])
        raise InputError(f"--{name} {given[name]} does not fit --engine {kind}: {error.errors()[0]['msg']}") from error
