"""Watch: the notification channel that ends by itself, kept alive by a job and its schedule."""

# No ``from __future__ import annotations`` here: Dagster does not resolve a postponed ``context``.

import dagster as dg

from crm_pipeline.orchestration.jobs import TAGS
from crm_pipeline.orchestration.loaded import SETTINGS
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.runs import under_way


@dg.op
def watch(context: dg.OpExecutionContext, external_crm: ExternalCrm, database: Database) -> None:
    """Ask the CRM for the channel; it waits for no other run."""
    with external_crm.service(database, context.run_id) as service:
        context.log.info("the channel ends at %s", service.renew_watch().isoformat(timespec="seconds"))


@dg.job(
    tags=TAGS,
    executor_def=dg.in_process_executor,
    description="Makes or renews the CRM's notification channel",
)
def watch_job() -> None:
    """The one step."""
    watch()


@dg.schedule(
    job=watch_job,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Renews the CRM's notification channel when half its life is over",
)
def watch_schedule(
    context: dg.ScheduleEvaluationContext, external_crm: ExternalCrm, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a renewal when it is due."""
    with external_crm.service(database) as service:
        if not service.settings.external_crm_enabled:
            return dg.SkipReason("EXTERNAL_CRM_ENABLED is false")
        due = service.watch_due(context.scheduled_execution_time)
    if not due:
        return dg.SkipReason("the channel is not half through its life")
    run = under_way(context.instance, {watch_job.name})
    return dg.SkipReason(f"run {run} is queued or in progress") if run else dg.RunRequest()


WATCHED = SETTINGS.connection.webhook.public_url is not None
"""Whether there is a channel to keep."""
WATCH_JOBS = [watch_job] if WATCHED else []
WATCH_SCHEDULES = [watch_schedule] if WATCHED else []
