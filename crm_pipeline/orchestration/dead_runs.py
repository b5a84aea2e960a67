"""Dead runs: found and ended, because Dagster's default launcher looks after no worker.

A run would stay "started" for its longest time when its worker dies together with the code server, or
when it is a fetch and the HTTP API dies.
"""

from __future__ import annotations

import dagster as dg

from crm_pipeline import instants
from crm_pipeline.orchestration.alive import BETWEEN_STEPS, PREFIX
from crm_pipeline.orchestration.jobs import TAGS
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.store import leases
from crm_pipeline.store.engine import reading, writing


@dg.sensor(
    minimum_interval_seconds=13,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose worker has died, so that Dagster tries them again",
)
def dead_run_sensor(
    context: dg.SensorEvaluationContext, external_crm: ExternalCrm, database: Database
) -> dg.SkipReason:
    """Tell Dagster of runs that would never end by themselves; what came from its queue it tries again."""
    with external_crm.service(database) as service:
        with reading(service.engine) as tx:
            run_out = leases.run_out(tx, PREFIX, instants.now())
            known = leases.names(tx, PREFIX)
        ended = [name for name, gone in run_out.items() if _is_over(context.instance, name, end=gone)]
        if ended:
            with writing(service.engine) as tx:
                leases.forget(tx, ended)
    for run in _begun_long_ago(context.instance):
        if f"{PREFIX}{run.run_id}" not in known:
            _end(context.instance, run)
    return dg.SkipReason(f"looked at {len(known)} runs")


def _is_over(instance: dg.DagsterInstance, name: str, *, end: bool) -> bool:
    """Whether a run has ended, now or before; one whose worker is gone is ended here."""
    run = instance.get_run_by_id(name.removeprefix(PREFIX))
    if run is None or run.is_finished:
        return True
    if end:
        _end(instance, run)
    return end


def _begun_long_ago(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs that began, and should have come to their first step."""
    begun = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags=dict(TAGS))
    limit = (instants.now() - BETWEEN_STEPS).timestamp()
    records = instance.get_run_records(begun)
    return [each.dagster_run for each in records if each.start_time is not None and each.start_time < limit]


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run, "The worker of this run has died.")
