"""What Dagster's processes load: `dagster ... -m pipelines.schedule.location`, with RECSYS_SCHEDULE in the environment."""

from pipelines.schedule.definitions import make_definitions
from pipelines.schedule.target import Target

defs = make_definitions(Target.of_environment())
