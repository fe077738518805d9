"""The same schedule as a line for cron."""

import shlex

from pipelines.schedule.target import Target

LOG = "cron.log"
HOURS = 5  # later hours in which a failed day is tried again; a finished one changes nothing


def crontab(target: Target) -> str:
    """A line for `crontab -e`: the newest day, each hour from `at` (3:00) on for some hours, in the machine's time zone."""
    hour, minute = (int(part) for part in (target.at or "3:00").split(":"))
    last = min(hour + HOURS, 23)
    hours = str(hour) if last == hour else f"{hour}-{last}"
    folder, log = (shlex.quote(str(path)) for path in (target.workspace, target.workspace / LOG))
    command = f"mkdir -p {folder} && cd {shlex.quote(str(target.directory))} && {shlex.join(target.command())} >> {log} 2>&1"
    return f"{minute} {hours} * * * {command.replace('%', chr(92) + '%')}"  # cron takes a bare % for the end of the line
