"""Sensors: each asks our database one question and requests at most one run, which does all the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from crm_pipeline import instants
from crm_pipeline.orchestration.days import tags_of_days
from crm_pipeline.orchestration.jobs import pull_job, push_job, sync_job, webhook_job
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.runs import rests_until, under_way
from crm_pipeline.settings import PushMode

if TYPE_CHECKING:
    from crm_pipeline.service import ExternalCrmService

# No run keys: Dagster remembers a key as long as the run's row lives, so the key of a failed run
# would keep its work from ever being tried again. What is to be done stands in our rows.

_DISABLED = "EXTERNAL_CRM_ENABLED is false"
_APPLYING = frozenset({webhook_job.name, pull_job.name, sync_job.name})
"""Jobs whose runs apply everything that has landed."""


@dg.sensor(
    job=webhook_job,
    # Dagster's daemon looks every 5 seconds; asked for 5, it finds them not quite over every third time.
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Applies webhooks that have landed, and records that a run left unapplied",
)
def webhook_sensor(
    context: dg.SensorEvaluationContext, external_crm: ExternalCrm, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run when something waits to be applied."""
    with external_crm.service(database) as service:
        if not service.settings.external_crm_enabled:
            return dg.SkipReason(_DISABLED)
        if not service.events_pending():
            return dg.SkipReason("nothing waits to be applied")
        # A run in progress that has applied already, and pushes now or is about to end, applies no
        # more: the next one is queued behind it.
        run = under_way(context.instance, _APPLYING, besides=service.last_applied_by)
        if run:
            return dg.SkipReason(_under_way(run))
        if service.busy:
            return dg.SkipReason("another program is at work on the connection")
        oldest = service.oldest_event_at
    rest = rests_until(context.instance, webhook_job.name, oldest)
    if rest and rest > instants.now():
        return dg.SkipReason(f"the last run failed; the next one may start at {rest:%H:%M:%S} UTC")
    return dg.RunRequest(tags=tags_of_days(oldest, instants.now()))


@dg.sensor(
    job=push_job,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Pushes contacts that changed by themselves, where EXTERNAL_CRM_PUSH is auto",
)
def contact_change_sensor(
    context: dg.SensorEvaluationContext, external_crm: ExternalCrm, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a push when a contact waits for one."""
    with external_crm.service(database) as service:
        reason = _reason_to_wait(context.instance, service)
    return dg.SkipReason(reason) if reason else dg.RunRequest()


def _reason_to_wait(instance: dg.DagsterInstance, service: ExternalCrmService) -> str | None:
    settings = service.settings
    if not settings.external_crm_enabled:
        return _DISABLED
    if settings.external_crm_push is not PushMode.AUTO:
        return f"EXTERNAL_CRM_PUSH is {settings.external_crm_push}"
    run = under_way(instance, {push_job.name, sync_job.name})
    if run:
        return _under_way(run)
    rest = rests_until(instance, push_job.name)
    if rest and rest > instants.now():
        return f"the last push failed; the next one may start at {rest:%H:%M:%S} UTC"
    return None if service.changes_pending() else "no contact has changed"


def _under_way(run: str) -> str:
    return f"run {run} is queued or in progress"
