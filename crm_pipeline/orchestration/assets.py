"""Assets: what the CRM has and tells, the contacts, what was written back. Each body calls one step."""

# No ``from __future__ import annotations`` here: Dagster reads the class of ``config`` from the
# annotation itself and does not resolve a postponed one.

import warnings
from collections.abc import Mapping
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from crm_pipeline import instants
from crm_pipeline.orchestration.days import DAYS, window
from crm_pipeline.orchestration.loaded import SETTINGS
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.results import materialized, reject_table, table
from crm_pipeline.sync.context import Progress
from crm_pipeline.sync.reports import Counts, Report

POOL = "crm_pipeline"
"""One run at a time works the connection; the run queue keeps the others waiting."""


_TELL_EVERY = 10_000
"""Records read from one line of progress to the next."""


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


class ApplyConfig(dg.Config):
    """How far applying may go."""

    allow_deletes: bool = Field(
        default=False,
        description="archives contacts the CRM has no more, however many they are; otherwise a run that "
        "would archive too many fails and archives none",
    )


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)  # a backfill policy still counts as beta in 1.13
    _days = SETTINGS.external_crm_backfill_days
    _by_day = dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.multi_run(_days) if _days else dg.BackfillPolicy.single_run(),
        pool=POOL,
        group_name="crm",
        kinds={"http"},
    )


@_by_day
def external_contacts(
    context: dg.AssetExecutionContext, config: PullConfig, external_crm: ExternalCrm, database: Database
) -> dg.MaterializeResult[None]:
    """Records of the CRM as they came, by the day they were last modified."""
    days = window(context)
    since, until = days or (None, None)
    with external_crm.service(database, context.run.run_id) as service:
        if config.mode is Mode.remap:
            report = Report("remap", Counts(unchanged=service.remap(since, until)))
        elif config.mode is Mode.days:
            report = service.pull(since, until, progress=_told(context))
        else:
            report = service.pull()
        by_day = service.records_by_day(*days) if days else {}
    mode = dg.MetadataValue.text(config.mode.value)
    if days is None:
        return materialized(report, mode=mode)
    _tell_by_day(context, by_day)
    return materialized(report, mode=mode, preview=table("day", by_day))


@_by_day
def webhook_events(
    context: dg.AssetExecutionContext, external_crm: ExternalCrm, database: Database
) -> dg.MaterializeResult[None]:
    """Webhooks by the day they came. They land without Dagster: this tells which are due to be applied."""
    days = window(context)
    with external_crm.service(database, context.run.run_id) as service:
        report = service.events_due(*(days or ()))
        by_day = service.events_by_day(*days) if days else {}
        oldest = service.oldest_event_at
    waits: dict[str, dg.MetadataValue[Any]] = {}
    if oldest is not None:
        seconds = (instants.now() - oldest).total_seconds()
        waits["oldest_waits_seconds"] = dg.MetadataValue.float(round(seconds, 3))
    if days is None:
        return materialized(report, **waits)
    _tell_by_day(context, by_day)
    return materialized(report, **waits, by_day=table("day", by_day))


@dg.asset(deps=[external_contacts, webhook_events], pool=POOL, group_name="crm", kinds={"sql"})
def contacts(
    context: dg.AssetExecutionContext, config: ApplyConfig, external_crm: ExternalCrm, database: Database
) -> dg.MaterializeResult[None]:
    """The organisation's contacts, with everything applied that has landed."""
    with external_crm.service(database, context.run.run_id) as service:
        report = service.apply(allow_deletes=config.allow_deletes)
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


def _told(context: dg.AssetExecutionContext) -> Progress:
    """Tell in the run's log how far a long reading has come."""
    told = 0

    def progress(done: int, _total: int | None) -> None:
        nonlocal told
        if done - told >= _TELL_EVERY:
            told = done
            context.log.info("%d records read", done)

    return progress


def _tell_by_day(context: dg.AssetExecutionContext, by_day: Mapping[str, int]) -> None:
    """Give each partition of the run its own figure."""
    for day in context.partition_keys:
        context.add_asset_metadata({"records_of_the_day": by_day.get(day, 0)}, partition_key=day)
