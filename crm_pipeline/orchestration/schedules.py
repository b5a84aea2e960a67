"""Schedules: when the CRM is polled. Cron cannot say "every 45 minutes", so a minute's cron asks us."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from crm_pipeline.orchestration.assets import Mode, PullConfig, external_contacts
from crm_pipeline.orchestration.days import tags_of_days
from crm_pipeline.orchestration.jobs import pull_job, sync_job
from crm_pipeline.orchestration.loaded import SETTINGS
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.runs import last_requested, under_way
from crm_pipeline.settings import PushMode

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Polling:
    """What the decision to poll depends on."""

    active: bool
    """The polling flag in our database."""
    interval: int
    """Minutes from one poll to the next."""
    last: datetime | None
    """When a poll was last asked for, whatever became of it."""
    under_way: str | None = None
    """The run that is queued or in progress."""


def reason_to_wait(polling: Polling, now: datetime) -> str | None:
    """Say why nothing is polled at ``now``; None when a poll is due."""
    if not polling.active:
        return "polling is switched off"
    if polling.under_way:
        return f"run {polling.under_way} is queued or in progress"
    left = minutes_left(polling.last, polling.interval, now)
    if left:
        return f"the next poll is due in {left} min: every {polling.interval} min"
    return None


def minutes_left(last: datetime | None, interval: int, now: datetime) -> int:
    """Whole minutes until the next poll; 0 when it is due.

    Seconds do not count: a poll asked for at 12:00:00 starts at 12:00:05, and the next must not
    be put off to 12:31 by that. A time further ahead than an interval was told by a wrong clock.
    """
    if last is None:
        return 0
    passed = (_minute(now) - _minute(last)) // _MINUTE
    return interval - passed if -interval <= passed < interval else 0


@dg.schedule(
    job=sync_job if SETTINGS.external_crm_push is PushMode.AUTO else pull_job,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Polls the CRM every EXTERNAL_CRM_SYNC_INTERVAL minutes while polling is switched on",
)
def polling_schedule(
    context: dg.ScheduleEvaluationContext, external_crm: ExternalCrm, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a poll when one is due."""
    now = context.scheduled_execution_time
    with external_crm.service(database) as service:
        if not service.settings.external_crm_enabled:
            return dg.SkipReason("EXTERNAL_CRM_ENABLED is false")
        watermark = service.watermark
        polling = Polling(
            active=service.polling,
            interval=service.settings.external_crm_sync_interval,
            # Our own last request, so that neither backfills nor pulls by hand shift the rhythm; in a
            # new DAGSTER_HOME that knows of none, the newest pull of our database.
            last=last_requested(context.instance, "polling_schedule") or service.last_poll_at,
            under_way=under_way(context.instance, {pull_job.name, sync_job.name}),
        )
    reason = reason_to_wait(polling, now)
    if reason:
        return dg.SkipReason(reason)
    incremental = dg.RunConfig(ops={external_contacts.op.name: PullConfig(mode=Mode.incremental)})
    return dg.RunRequest(run_config=incremental, tags=tags_of_days(watermark, now))


def _minute(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)
