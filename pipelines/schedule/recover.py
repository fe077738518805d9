"""Before a schedule starts: runs that a dead machine left as running count as failed, so that they are tried again.

Dagster's own monitoring cannot tell whether such a run still lives, and one that never ends keeps all others waiting.
"""

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

LEFT = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def recover(instance: DagsterInstance) -> int:
    """How many runs were left. Only while no other process works on this home; a retry goes on where the day stopped."""
    left = instance.get_runs(RunsFilter(statuses=LEFT))
    for run in left:
        if run.status == DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run)
        else:
            instance.report_run_failed(run, "the schedule ended while this run was going on")
    return len(left)


if __name__ == "__main__":
    with DagsterInstance.get() as found:
        recover(found)
