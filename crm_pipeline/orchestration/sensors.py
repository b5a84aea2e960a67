"""Sensors: each asks our database one question and requests at most one run, which does all the work."""

from __future__ import annotations

import dagster as dg

from crm_pipeline import instants
from crm_pipeline.orchestration.jobs import push_job, sync_job
from crm_pipeline.orchestration.resources import ExternalCrm
from crm_pipeline.orchestration.runs import rests_until, under_way
from crm_pipeline.settings import PushMode

# No run keys: Dagster remembers a key as long as the run's row lives, so the key of a failed run
# would keep its work from ever being tried again. What is to be done stands in our rows.


@dg.sensor(
    job=push_job,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Pushes contacts that changed by themselves, where EXTERNAL_CRM_PUSH is auto",
)
def contact_change_sensor(
    context: dg.SensorEvaluationContext, external_crm: ExternalCrm
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a push when a contact waits for one."""
    settings = external_crm.settings()
    if not settings.external_crm_enabled:
        return dg.SkipReason("EXTERNAL_CRM_ENABLED is false")
    if settings.external_crm_push is not PushMode.AUTO:
        return dg.SkipReason(f"EXTERNAL_CRM_PUSH is {settings.external_crm_push}")
    run = under_way(context.instance, {push_job.name, sync_job.name})
    if run:
        return dg.SkipReason(f"run {run} is queued or in progress")
    rest = rests_until(context.instance, push_job.name)
    if rest and rest > instants.now():
        return dg.SkipReason(f"the last push failed; the next one may start at {rest:%H:%M:%S} UTC")
    with external_crm.service() as service:
        changed = service.changes_pending()
    return dg.RunRequest() if changed else dg.SkipReason("no contact has changed")
