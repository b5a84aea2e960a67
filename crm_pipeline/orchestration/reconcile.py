"""Reconcile: the nightly comparison of both sides as an asset, its check, job and schedule."""

# No ``from __future__ import annotations`` here: Dagster reads the class of ``config`` from the
# annotation itself and does not resolve a postponed one.

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from crm_pipeline.orchestration.assets import POOL, contacts
from crm_pipeline.orchestration.jobs import TAGS
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.results import table
from crm_pipeline.orchestration.runs import under_way
from crm_pipeline.settings import Nightly

if TYPE_CHECKING:
    from crm_pipeline.sync.parity import ReconcileReport

_CHECK = "both_sides_agree"


class ParityConfig(dg.Config):
    """Whether to mend as well."""

    repair: bool = Field(
        default=False,
        description="lets the sync settle what differs silently: it lands and is applied like anything that "
        "is read; what the CRM has to hear of goes with the next push",
    )


@dg.asset(
    deps=[contacts],
    pool=POOL,
    group_name="crm",
    kinds={"pandas"},
    check_specs=[
        dg.AssetCheckSpec(
            _CHECK, asset="parity", description="Nothing differs but what the sync knows of and will settle."
        )
    ],
)
def parity(
    context: dg.AssetExecutionContext, config: ParityConfig, external_crm: ExternalCrm, database: Database
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Both sides compared whole, as tables: figures of what agrees, and of what differs and why."""
    with external_crm.service(database, context.run.run_id) as service:
        report = service.reconcile(repair=config.repair)
    yield dg.MaterializeResult(metadata=_figures(report))
    yield _verdict(report)


def _figures(report: "ReconcileReport") -> dict[str, dg.MetadataValue]:
    """Figures without a person: contacts are named by the command line only."""
    kinds = {f"{kind.value}: {field}": number for (kind, field), number in report.by_kind().items()}
    known = {reason.value: number for reason, number in sorted(report.known.items())}
    figures: dict[str, dg.MetadataValue] = {
        **{name: dg.MetadataValue.int(number) for name, number in report.figures().items()},
        "api_calls": dg.MetadataValue.int(report.api_calls),
        "pages": dg.MetadataValue.int(report.pages),
        "duration_seconds": dg.MetadataValue.float(round(report.duration_seconds, 3)),
        "repaired": dg.MetadataValue.bool(report.repaired),
        "by_kind": table("difference", kinds),
        "by_reason": table("known difference", known),
    }
    if report.note:
        figures["note"] = dg.MetadataValue.text(report.note)
    return figures


def _verdict(report: "ReconcileReport") -> dg.AssetCheckResult:
    left = report.remaining if report.repaired else report.differing
    cure = "crm-pipeline reconcile --list names them, with --repair it mends them" if left else None
    return dg.AssetCheckResult(
        check_name=_CHECK,
        passed=not left,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"compared": report.compared, "differing": report.differing, "left": left},
        description=report.note or cure,
    )


reconcile_job = dg.define_asset_job(
    "reconcile_job",
    selection=[parity],
    tags=TAGS,
    executor_def=dg.in_process_executor,
    description="Reads both sides whole and compares them",
)


@dg.schedule(
    job=reconcile_job,
    cron_schedule="30 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compares both sides whole, every night",
)
def reconcile_schedule(
    context: dg.ScheduleEvaluationContext, external_crm: ExternalCrm, database: Database
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a comparison, as EXTERNAL_CRM_RECONCILE says, where none is under way."""
    with external_crm.service(database) as service:
        if not service.settings.external_crm_enabled:
            return dg.SkipReason("EXTERNAL_CRM_ENABLED is false")
        nightly = service.settings.external_crm_reconcile
    if nightly is Nightly.OFF:
        return dg.SkipReason("EXTERNAL_CRM_RECONCILE is off")
    run = under_way(context.instance, {reconcile_job.name})
    if run:
        return dg.SkipReason(f"run {run} is queued or in progress")
    repair = ParityConfig(repair=nightly is Nightly.REPAIR)
    return dg.RunRequest(run_config=dg.RunConfig(ops={parity.op.name: repair}))
