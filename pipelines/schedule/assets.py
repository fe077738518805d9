"""The artefacts of a day as Dagster's assets. Each runs `recsys daily`, and shows what the day's files say about it."""

from datetime import timedelta

import dagster as dg

from pipelines.daily.lock import BUSY
from pipelines.schedule.describe import ALARMS, GATES, describe
from pipelines.schedule.step import REFUSED, Ended, run_step
from pipelines.schedule.target import Target

GROUP = "daily"
BUSY_RETRIES, BUSY_WAIT_S = 20, 900.0  # a day's run that someone else started may take hours
# The last step None: a run of the whole day, which does what is left of it and clears away old days.
ASSETS: dict[str, tuple[tuple[str | None, ...], str, str]] = {
    "raw": (("arrive",), "file", "The day's partition of the log: whole, of the known schema, with the rows of a day."),
    "dataset": (("prepare",), "parquet", "Timelines, examples and id maps up to this day; it grows from the day before's."),
    "checkpoint": (("train",), "pytorch", "The models, which go on from an earlier day's or begin from scratch."),
    "metrics": (("evaluate",), "json", "The candidate and the champion, judged on the same newest window."),
    "bundle": (("export",), "onnx", "What a server loads, registered in MLflow as the candidate."),
    "champion": (("promote", None), "mlflow", "The version that is served, after the gates; then the reload and the report."),
}


def make_assets(target: Target) -> list[dg.AssetsDefinition]:
    """raw -> dataset -> checkpoint -> metrics -> bundle -> champion, in daily partitions of UTC."""
    days = dg.DailyPartitionsDefinition(start_date=target.first_day.isoformat())
    names = list(ASSETS)
    return [_asset(target, name, names[place - 1] if place else None, days) for place, name in enumerate(names)]


def _asset(target: Target, name: str, before: str | None, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    steps, kind, description = ASSETS[name]
    deps = [dg.AssetDep(before)] if before else []
    if name == "dataset":  # so that a backfill keeps to the order of the days
        yesterday = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
        deps.append(dg.AssetDep(name, partition_mapping=yesterday))
    last = name == "champion"

    @dg.asset(
        name=name, deps=deps, partitions_def=days, group_name=GROUP, kinds={kind}, description=description,
        retry_policy=dg.RetryPolicy(
            max_retries=target.retries, delay=target.retry_s, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
        ),
        check_specs=[dg.AssetCheckSpec(each, asset=name) for each in (GATES, ALARMS)] if last else [],
        freshness_policy=dg.FreshnessPolicy.time_window(timedelta(hours=target.stale_h)) if last else None,
    )  # fmt: skip
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        day = context.partition_key
        for step in steps:
            ended = run_step(target, step, day)
            if ended.status:
                _fail(ended, step, target, context.retry_number)
        return describe(target.workspace, name, [step for step in steps if step], day)

    return asset


def _fail(ended: Ended, step: str | None, target: Target, number: int) -> None:
    """Raise what makes Dagster try again later; a day whose log was refused waits until its files change."""
    if ended.status == BUSY:
        raise dg.RetryRequested(
            max_retries=max(target.retries, BUSY_RETRIES), seconds_to_wait=min(target.retry_s * 2**number, BUSY_WAIT_S)
        )
    raise dg.Failure(
        f"{step or 'the rest of the day'}: {ended.sentence}",
        metadata={"tail": dg.MetadataValue.text(ended.tail), "exit status": ended.status},
        allow_retries=(step, ended.status) != ("arrive", REFUSED),
    )
