"""What one server is told, beside the bundle: where its state lies, and its limits. Processes read it from one JSON file."""

import os
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from recsys.spec import Spec

SETTINGS_VARIABLE = "RECSYS_SERVER"  # names the JSON file
STATE_VARIABLE = "RECSYS_STATE"  # where `state` comes from when it holds a password


class Settings(Spec):
    """Paths are absolute. Every worker process has the same settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    live: Path = Field(description="folder of this server: deployment.json, models, state.db, journal, keys.json")
    workers: int = Field(1, ge=1)
    # state
    state: str = Field("sqlite", description="sqlite: a file in `live`; or the url of a Redis server, redis://host:port/0")
    state_timeout_ms: int = Field(50, ge=1, description="how long an answer waits for the state before it goes on without")
    max_events: int = Field(500, ge=1, description="events of a user that are kept")
    ttl_s: int = Field(30 * 86_400, ge=1, description="how long a user's events are kept after the last one")
    # journal
    journal: bool = Field(True, description="write served lists and events to `live`/journal")
    fsync: bool = Field(False, description="an acknowledged event also survives a power cut, at the price of a disk flush")
    logged_requests: float = Field(0.01, ge=0, le=1, description="share of requests logged with all that the graphs read")
    clock: Literal["own", "requests"] = Field(
        "own",
        description="by which the error memory tells time: the server's, or the moments that requests and events name, so that "
        "days can be played in seconds",
    )
    # speed
    threads: int = Field(1, ge=1, description="of the graphs, for each worker")
    max_batch: int = Field(16, ge=1)
    deadline_ms: int = Field(1_000, ge=1, description="after which a list is made without the model")
    # safety
    keys: bool = Field(
        False, description="whether requests need an API key of `live`/keys.json; without, admin routes are closed"
    )
    requests_per_s: float = Field(
        0, ge=0, description="of one key (without keys: of one address), shared evenly by the workers; 0: no limit"
    )
    requests_per_day: int = Field(0, ge=0, description="the same for a day (UTC), counted since the start of the server")
    max_body_bytes: int = Field(1_000_000, ge=1)
    max_header_bytes: int = Field(32_768, ge=1024, description="request line and headers")
    max_connections: int = Field(1_000, ge=1, description="open at a time, for each worker; further ones are closed")
    header_timeout_s: float = Field(10, gt=0, description="for a request line and its headers to arrive")
    request_timeout_s: float = Field(15, gt=0, lt=30, description="for a body to arrive and be answered")
    max_queue: int = Field(256, ge=1, description="questions that may wait for the graphs; further ones get status 503")
    catalogue: Path | None = Field(None, description="CSV or Parquet file of what is sold, where and until when; watched")
    page: bool = Field(True, description="whether / shows the page")

    @classmethod
    def of_environment(cls) -> "Settings":
        return cls.model_validate_json(Path(os.environ[SETTINGS_VARIABLE]).read_text())
