"""Sensors: each asks our database one question and requests at most one run, which does all the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from crm_pipeline import instants
from crm_pipeline.orchestration.jobs import push_job, sync_job
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.runs import rests_until, under_way
from crm_pipeline.settings import PushMode

if TYPE_CHECKING:
    from crm_pipeline.service import ExternalCrmService

# No run keys: Dagster remembers a key as long as the run's row lives, so the key of a failed run
# would keep its work from ever being tried again. What is to be done stands in our rows.


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
        return "EXTERNAL_CRM_ENABLED is false"
    if settings.external_crm_push is not PushMode.AUTO:
        return f"EXTERNAL_CRM_PUSH is {settings.external_crm_push}"
    run = under_way(instance, {push_job.name, sync_job.name})
    if run:
        return f"run {run} is queued or in progress"
    rest = rests_until(instance, push_job.name)
    if rest and rest > instants.now():
        return f"the last push failed; the next one may start at {rest:%H:%M:%S} UTC"
    return None if service.changes_pending() else "no contact has changed"
