"""Many metric values into the store, and many runs out of it.

MLflow makes an object of SQLAlchemy's for every value, some 75 microseconds of the interpreter lock that training needs, too.
Where the store is an SQL database in this process (for writing: an SQLite file), the same rows go into and come from the same
tables in a few statements, for a fraction of that. Where the tables are not those that are known here, MLflow does it.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from recsys.track.store import SQLITE

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RUNS_PER_QUERY = 500
METRICS_PER_CALL = 1000  # what an MLflow server takes in one request
COLUMNS = ("key", "timestamp", "step", "run_uuid", "value", "is_nan")
LARGEST = 1.7976931348623157e308  # how MLflow's SQL store writes infinity

Value = Sequence[Any]  # name, value, milliseconds, step
Row = tuple[str, int, int, str, float, bool]  # in the order of COLUMNS


def log_metrics(client: "MlflowClient", run_id: str, values: Sequence[Value], uri: str) -> None:
    """Log values that may have been logged before: a value with the same name, step and time is the same value."""
    if uri.startswith(SQLITE) and _insert(client, run_id, values):
        return
    from mlflow.entities import Metric

    for start in range(0, len(values), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=[Metric(*value) for value in values[start : start + METRICS_PER_CALL]])


def _insert(client: "MlflowClient", run_id: str, values: Sequence[Value]) -> bool:
    """Whether the rows are in the tables now. Not for a deleted run, which MLflow refuses in its own words."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric

    engine = _engine(client)
    tables = (SqlMetric.__table__, SqlLatestMetric.__table__)
    if engine is None or any({column.name for column in table.columns} != set(COLUMNS) for table in tables):
        return False
    rows = sorted(_row(run_id, *value) for value in values)  # in the order of the index, which is then written page by page
    newest: dict[str, Row] = {}
    for row in rows:
        if row[0] not in newest or _order(row) > _order(newest[row[0]]):
            newest[row[0]] = row
    columns, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
    with engine.begin() as connection:
        run = connection.exec_driver_sql("SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", (run_id,)).scalar()
        if run != "active":
            return False
        # The insert takes the lock under which the latest values are read.
        connection.exec_driver_sql(f"INSERT OR IGNORE INTO metrics ({columns}) VALUES ({marks})", rows)
        for known in connection.exec_driver_sql(f"SELECT {columns} FROM latest_metrics WHERE run_uuid = ?", (run_id,)):
            if known[0] in newest and _order(known) >= _order(newest[known[0]]):
                del newest[known[0]]
        if newest:
            connection.exec_driver_sql(
                f"INSERT OR REPLACE INTO latest_metrics ({columns}) VALUES ({marks})", list(newest.values())
            )
    return True


def read_runs(client: "MlflowClient", experiment_id: str, *, deleted: bool) -> list[Any] | None:
    """An experiment's runs, as `client.search_runs` gives them (what `recsys.track.runs.summary` reads of them); None where the
    store is a server, or its tables are other ones than here."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
    from sqlalchemy import select

    engine = _engine(client)
    run, named = SqlRun.__table__, [model.__table__ for model in (SqlTag, SqlParam, SqlLatestMetric)]
    columns = ("run_uuid", "name", "status", "start_time", "artifact_uri")
    if engine is None or not {*columns, "experiment_id", "lifecycle_stage"} <= set(run.columns.keys()):
        return None
    if any(not {"run_uuid", "key", "value"} <= set(table.columns.keys()) for table in named):
        return None
    stage = "deleted" if deleted else "active"
    which = (run.c.experiment_id == int(experiment_id)) & (run.c.lifecycle_stage == stage)
    with engine.connect() as connection:
        found = connection.execute(select(*(run.c[name] for name in columns)).where(which)).all()
        values: list[dict[str, dict[str, Any]]] = []
        for table in named:
            own = [table.c[name] for name in ("run_uuid", "key", "value", "is_nan") if name in table.columns]
            of_run: dict[str, dict[str, Any]] = {each[0]: {} for each in found}
            for run_id, key, value, *unknown in connection.execute(
                select(*own).join(run, run.c.run_uuid == own[0]).where(which)
            ):
                of_run.setdefault(run_id, {})[key] = math.nan if any(unknown) else value
            values.append(of_run)
    tags, params, metrics = values
    return [
        SimpleNamespace(
            info=SimpleNamespace(run_id=run_id, run_name=name, status=status, start_time=start, artifact_uri=artefacts),
            data=SimpleNamespace(tags=tags[run_id], params=params[run_id], metrics=metrics[run_id]),
        )
        for run_id, name, status, start, artefacts in found
    ]


def read_histories(client: "MlflowClient", run_ids: Sequence[str], key: str) -> dict[str, list[tuple[int, float]]] | None:
    """run id -> (step, value) of a metric, by step; None as of `read_runs`."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy import select

    engine, table = _engine(client), SqlMetric.__table__
    if engine is None or not set(COLUMNS) <= set(table.columns.keys()):
        return None
    found: dict[str, list[tuple[int, float]]] = {}
    with engine.connect() as connection:
        for start in range(0, len(run_ids), RUNS_PER_QUERY):
            some = table.c.run_uuid.in_(run_ids[start : start + RUNS_PER_QUERY])
            columns = (table.c[name] for name in ("run_uuid", "step", "value", "is_nan"))
            for run_id, step, value, unknown in connection.execute(select(*columns).where(some & (table.c.key == key))):
                found.setdefault(run_id, []).append((step, math.nan if unknown else value))
    return {run_id: sorted(points) for run_id, points in found.items()}


def _engine(client: "MlflowClient") -> Any:
    """SQLAlchemy's, of a store that is a database in this process."""
    return getattr(getattr(getattr(client, "_tracking_client", None), "store", None), "engine", None)


def _row(run_id: str, key: str, value: float, timestamp: int, step: int) -> Row:
    unknown = math.isnan(value)
    number = 0.0 if unknown else max(-LARGEST, min(LARGEST, value))
    return key, timestamp, step, run_id, number, unknown


def _order(row: Any) -> tuple[int, int, float]:
    return row[2], row[1], row[4]
