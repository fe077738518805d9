"""The assets, a job for a day, the schedule and the sensor."""

import json
import time

import dagster as dg

from pipelines.schedule.assets import ASSETS, make_assets
from pipelines.schedule.target import Target

JOB, SCHEDULE, SENSOR = "day", "every_day", "arriving_days"


def make_definitions(target: Target) -> dg.Definitions:
    """All of it for one target. A run is one process: each step is a process of its own already."""
    job = dg.define_asset_job(
        JOB, selection=dg.AssetSelection.assets(*ASSETS), description="One day, from raw log to champion."
    )
    by_clock = dg.DefaultScheduleStatus.RUNNING if target.at else dg.DefaultScheduleStatus.STOPPED
    hour, minute = (int(part) for part in (target.at or "3:00").split(":"))
    schedule = dg.build_schedule_from_partitioned_job(
        job, name=SCHEDULE, hour_of_day=hour, minute_of_hour=minute, default_status=by_clock,
        description="The day before, at a fixed time, whether its log is there or not: a missing one fails with the reason.",
    )  # fmt: skip
    return dg.Definitions(
        assets=make_assets(target), jobs=[job], schedules=[schedule], sensors=[_sensor(target, job)],
        executor=dg.in_process_executor,
    )  # fmt: skip


def _sensor(target: Target, job: "dg.UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    """Runs a day when its partition of the log is there, and again when its files changed."""

    @dg.sensor(
        name=SENSOR, job=job, minimum_interval_seconds=target.every_s, default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for new or changed daily partitions in the raw folder.",
    )  # fmt: skip
    def arriving(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from pipelines.schedule.arriving import look, newest_done, runnable, wanted
        from recsys.data.source import Events

        now = time.time()
        there = look(Events.model_validate(target.events), target.daily, target.data, now)
        there = runnable(there, target.first_day, now, target.daily.utc_offset_hours)
        run, seen = wanted(
            there.whole, json.loads(context.cursor) if context.cursor else None, done=newest_done(target.workspace),
            marked=target.daily.marker is not None,
        )  # fmt: skip
        asked = [dg.RunRequest(run_key=f"{day}/{there.whole[day]}", partition_key=day) for day in run]
        why = None if asked else "; ".join(there.waiting.values()) or "no new day"
        return dg.SensorResult(run_requests=asked, cursor=json.dumps(seen), skip_reason=why)

    return arriving
