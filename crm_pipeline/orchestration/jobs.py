"""Jobs: which assets share a run."""

from __future__ import annotations

import dagster as dg

from crm_pipeline.orchestration.assets import contacts, external_contacts, outbound_push, webhook_events
from crm_pipeline.orchestration.checks import connection_checks
from crm_pipeline.orchestration.loaded import SETTINGS

CONNECTION_TAG = "crm/connection"
TAGS = {
    CONNECTION_TAG: SETTINGS.connection.name,
    # A worker that hangs is ended; the next run goes on where this one had come to.
    "dagster/max_runtime": str(60 * 60),
}

# In one process: a process for each step costs seconds, and a step here may take milliseconds.
pull_job = dg.define_asset_job(
    "pull_job",
    selection=[external_contacts, contacts],
    tags=TAGS,
    executor_def=dg.in_process_executor,
    description="Reads what changed in the CRM and applies it to the contacts",
)
webhook_job = dg.define_asset_job(
    "webhook_job",
    selection=[webhook_events, contacts],
    tags=TAGS,
    executor_def=dg.in_process_executor,
    description="Applies the webhooks that have landed, all of them, to the contacts",
)
push_job = dg.define_asset_job(
    "push_job",
    # With the check: right after a pull nothing is ever stale, before a push it may be.
    selection=dg.AssetSelection.assets(outbound_push) | dg.AssetSelection.checks(connection_checks),
    tags=TAGS,
    executor_def=dg.in_process_executor,
    description="Writes changed contacts back to the CRM",
)
sync_job = dg.define_asset_job(
    "sync_job",
    selection=[external_contacts, contacts, outbound_push],
    tags=TAGS,
    executor_def=dg.in_process_executor,
    description="Both ways: pulls, applies, pushes",
)
