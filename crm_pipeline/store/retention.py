"""Retention: what has served its purpose goes, so that personal data has a stated lifetime."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store.tables import (
    alerts,
    conflicts,
    contact_changes,
    external_records,
    intents,
    rejects,
    sync_runs,
    webhook_events,
)


def prune(
    tx: Connection, connection: str, *, landed: datetime, history: datetime, runs: datetime
) -> dict[str, int]:
    """Remove what is older than these moments; rows by table.

    Kept whatever their age: each record as last read, what still waits or is rejected, open
    conflicts and intents, and the newest run of each step and end.
    """
    told = sa.select(rejects.c.record_id).where(rejects.c.record_id.is_not(None))
    rejected = sa.select(rejects.c.key).where(
        rejects.c.connection == connection, rejects.c.source == "webhook"
    )
    newest = sa.select(sa.func.max(sync_runs.c.id)).group_by(
        sync_runs.c.connection, sync_runs.c.step, sync_runs.c.state
    )
    doomed = (
        (external_records, external_records.c.read_at < landed, ~external_records.c.current,
         external_records.c.id.not_in(told)),
        (webhook_events, webhook_events.c.received_at < landed, webhook_events.c.outcome.is_not(None),
         webhook_events.c.event_id.not_in(rejected)),
        (intents, intents.c.created_at < landed, intents.c.state != "open"),
        (contact_changes, contact_changes.c.at < history),
        (conflicts, conflicts.c.settled_at < history),
        (alerts, alerts.c.closed_at < runs, alerts.c.due_at.is_(None)),
        (sync_runs, sync_runs.c.started_at < runs, sync_runs.c.id.not_in(newest)),
    )  # fmt: skip
    return {
        table.name: tx.execute(table.delete().where(table.c.connection == connection, *conditions)).rowcount
        for table, *conditions in doomed
    }
