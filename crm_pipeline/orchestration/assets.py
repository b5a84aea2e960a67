"""Assets: what the CRM has, the contacts, and what was written back. Each body calls one step."""

# No ``from __future__ import annotations`` here: Dagster reads the class of ``config`` from the
# annotation itself and does not resolve a postponed one.

import warnings
from datetime import datetime, time
from enum import Enum

import dagster as dg
from pydantic import Field

from crm_pipeline.orchestration.loaded import SETTINGS
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.results import materialized, reject_table, table
from crm_pipeline.sync.reports import Counts, Report

POOL = "crm_pipeline"
"""One run at a time works the connection; the run queue keeps the others waiting."""
DAYS = dg.DailyPartitionsDefinition(
    datetime.combine(SETTINGS.external_crm_first_day, time()), timezone="UTC", end_offset=1
)
"""Days of modification. The offset adds the day that has not ended, which polls read."""


class Mode(Enum):
    """What a run of ``external_contacts`` reads."""

    days = "days"
    incremental = "incremental"
    remap = "remap"


class PullConfig(dg.Config):
    """How to read."""

    mode: Mode = Field(
        Mode.days,
        description="days: the run's partitions are read again from the CRM; a run without partitions reads "
        "what changed since the last one. incremental: reads what changed since the last one, whatever the "
        "partitions. remap: asks the CRM nothing and lets what had landed for the partitions be mapped again",
    )


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)  # a backfill policy still counts as beta in 1.13
    _by_day = dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=POOL,
        group_name="crm",
        kinds={"http"},
    )


@_by_day
def external_contacts(
    context: dg.AssetExecutionContext, config: PullConfig, external_crm: ExternalCrm, database: Database
) -> dg.MaterializeResult[None]:
    """Records of the CRM as they came, by the day they were last modified."""
    days = _window(context)
    since, until = days or (None, None)
    with external_crm.service(database, context.run.run_id) as service:
        if config.mode is Mode.remap:
            report = Report("remap", Counts(unchanged=service.remap(since, until)))
        elif config.mode is Mode.days:
            report = service.pull(since, until)
        else:
            report = service.pull()
        by_day = service.records_by_day(*days) if days else {}
    mode = dg.MetadataValue.text(config.mode.value)
    if days is None:
        return materialized(report, mode=mode)
    for day in context.partition_keys:
        context.add_asset_metadata({"records_of_the_day": by_day.get(day, 0)}, partition_key=day)
    return materialized(report, mode=mode, preview=table("day", by_day))


@dg.asset(deps=[external_contacts], pool=POOL, group_name="crm", kinds={"sql"})
def contacts(
    context: dg.AssetExecutionContext, external_crm: ExternalCrm, database: Database
) -> dg.MaterializeResult[None]:
    """The organisation's contacts, with everything applied that has landed."""
    with external_crm.service(database, context.run.run_id) as service:
        report = service.apply()
        rejected = service.rejects(limit=1000)
    return materialized(report, open_rejects=reject_table(rejected))


@dg.asset(deps=[contacts], pool=POOL, group_name="crm", kinds={"http"})
def outbound_push(
    context: dg.AssetExecutionContext, external_crm: ExternalCrm, database: Database
) -> dg.MaterializeResult[None]:
    """Fields that differ from what the CRM holds, written back."""
    with external_crm.service(database, context.run.run_id) as service:
        report = service.push()
    return materialized(report)


def _window(context: dg.AssetExecutionContext) -> tuple[datetime, datetime] | None:
    """Return the time that the run's partitions span; None for a run without partitions."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None
    window = context.partition_time_window
    return window.start, window.end
