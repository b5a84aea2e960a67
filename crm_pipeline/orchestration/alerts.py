"""Alerts: a sensor that looks at everything each minute and tells people. It starts no run."""

from __future__ import annotations

import dagster as dg

from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.runs import failing, oldest_queued


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Notes what is wrong, and tells people once, and once more when it is over",
)
def alert_sensor(
    context: dg.SensorEvaluationContext, external_crm: ExternalCrm, database: Database
) -> dg.SkipReason:
    """Look, note, tell. By a sensor and not by a run: it must also tell that runs do not start."""
    from crm_pipeline.alerting.channels import channels_of  # noqa: PLC0415 - requests is slow to import
    from crm_pipeline.alerting.conditions import conditions  # noqa: PLC0415
    from crm_pipeline.alerting.keeper import note, our_runs, tell  # noqa: PLC0415
    from crm_pipeline.store.engine import reading  # noqa: PLC0415

    with external_crm.service(database) as service:
        if not service.settings.external_crm_enabled:
            return dg.SkipReason("EXTERNAL_CRM_ENABLED is false")
        channels, name = channels_of(service.settings), service.connection.name
        seen = service.evidence(look=False)
        with reading(service.engine) as tx:
            runs = our_runs(tx, name, failing(context.instance), oldest_queued(context.instance))
        wrong = conditions(seen, runs)
        note(service.engine, name, wrong, list(channels), seen.now)
        failed = tell(service.engine, name, channels)
    for channel, why in failed.items():
        context.log.warning("the channel '%s' takes no message (%s); it is tried again", channel, why)
    return dg.SkipReason(f"{len(wrong)} wrong; told by {', '.join(channels) or 'nobody: no channel is set'}")
