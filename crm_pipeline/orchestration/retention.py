"""Retention: a nightly job that removes what is older than the connection file allows."""

# No ``from __future__ import annotations`` here: Dagster reads the classes of an op's parameters.

from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from crm_pipeline import instants
from crm_pipeline.orchestration.assets import POOL
from crm_pipeline.orchestration.jobs import TAGS
from crm_pipeline.orchestration.resources import Database, ExternalCrm

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_TOGETHER = 100


@dg.op(pool=POOL)
def remove_what_is_old(
    context: dg.OpExecutionContext, external_crm: ExternalCrm, database: Database
) -> dict[str, int]:
    """Rows of ours, and Dagster's own finished runs with their events."""
    with external_crm.service(database, context.run.run_id) as service:
        removed = service.prune()
        days = service.connection.retention.runs_days
    removed["dagster_runs"] = _remove_runs(context.instance, instants.now() - timedelta(days=days))
    context.add_output_metadata({name: dg.MetadataValue.int(number) for name, number in removed.items()})
    return removed


@dg.job(
    tags=TAGS,
    executor_def=dg.in_process_executor,
    description="Removes landed versions, history and runs that are older than the connection file allows",
)
def retention_job() -> None:
    """One step."""
    remove_what_is_old()


@dg.schedule(
    job=retention_job,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Removes what is older than it may be, every night",
)
def retention_schedule(external_crm: ExternalCrm, database: Database) -> dg.RunRequest | dg.SkipReason:
    """Ask for it, where the connection is switched on."""
    with external_crm.service(database) as service:
        if not service.settings.external_crm_enabled:
            return dg.SkipReason("EXTERNAL_CRM_ENABLED is false")
    return dg.RunRequest()


def _remove_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete finished runs that were made before a moment; on SQLite each has a file of its own."""
    wanted = dg.RunsFilter(statuses=_ENDED, created_before=before)
    removed = 0
    while runs := instance.get_runs(wanted, limit=_TOGETHER):
        for run in runs:
            instance.delete_run(run.run_id)
            _remove_file(instance, run.run_id)
        removed += len(runs)
    return removed


def _remove_file(instance: dg.DagsterInstance, run_id: str) -> None:
    path_of = getattr(instance.event_log_storage, "path_for_shard", None)  # on SQLite only
    if path_of is not None:
        with suppress(FileNotFoundError):
            Path(path_of(run_id)).unlink()
