"""Schedules: what the clock begins, and nothing about a sync."""

import dagster as dg

from ccs_dacs_pipeline.jobs import tidy_up


def tidy_schedule(*, running: bool, zone: str) -> dg.ScheduleDefinition:
    """Returns the schedule that tidies up every night.

    Args:
        running: whether it is on without anybody turning it on.
        zone: the time zone whose night it is.
    """
    return dg.ScheduleDefinition(
        name="nightly_tidy_up",
        job=tidy_up,
        cron_schedule="30 3 * * *",
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description="Removes the frames of batches that ended long ago.",
    )
