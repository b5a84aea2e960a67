"""The one entry point for Dagster: everything that lives is listed here."""

from __future__ import annotations

import dagster as dg

from crm_pipeline.orchestration.alerts import alert_sensor
from crm_pipeline.orchestration.assets import contacts, external_contacts, outbound_push, webhook_events
from crm_pipeline.orchestration.checks import connection_checks, contact_checks, push_checks
from crm_pipeline.orchestration.dead_runs import dead_run_sensor
from crm_pipeline.orchestration.jobs import pull_job, push_job, sync_job, webhook_job
from crm_pipeline.orchestration.reconcile import parity, reconcile_job, reconcile_schedule
from crm_pipeline.orchestration.resources import Database, ExternalCrm, variable
from crm_pipeline.orchestration.retention import retention_job, retention_schedule
from crm_pipeline.orchestration.schedules import polling_schedule
from crm_pipeline.orchestration.sensors import contact_change_sensor, webhook_sensor
from crm_pipeline.orchestration.watch import WATCH_JOBS, WATCH_SCHEDULES

defs = dg.Definitions(
    assets=[external_contacts, webhook_events, contacts, outbound_push, parity],
    asset_checks=[connection_checks, contact_checks, push_checks],
    jobs=[pull_job, webhook_job, push_job, sync_job, reconcile_job, retention_job, *WATCH_JOBS],
    schedules=[polling_schedule, reconcile_schedule, retention_schedule, *WATCH_SCHEDULES],
    sensors=[webhook_sensor, contact_change_sensor, dead_run_sensor, alert_sensor],
    resources={
        "database": Database(url=variable("DATABASE_URL")),
        "external_crm": ExternalCrm(api_key=variable("EXTERNAL_CRM_API_KEY")),
    },
    executor=dg.in_process_executor,  # for backfills and single assets, which run without a job of ours
)
