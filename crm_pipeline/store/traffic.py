"""Traffic: what was written to the CRM lately, and what of it came back changed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store.tables import contact_changes, intents

_LOOKED_AT = 2000
"""Writes that are looked at, the newest."""
_AT_ONCE = 500


def echoes(tx: Connection, connection: str, since: datetime) -> tuple[int, int]:
    """Fields of contacts written to the CRM since then, and those the CRM has changed after the write."""
    query = (
        sa.select(intents.c.contact_id, intents.c.sent, intents.c.closed_at)
        .where(
            intents.c.connection == connection, intents.c.state == "confirmed", intents.c.closed_at >= since
        )
        .order_by(intents.c.closed_at.desc())
        .limit(_LOOKED_AT)
    )
    written: dict[tuple[str, str], datetime] = {}
    for row in tx.execute(query):
        for field in row.sent:
            written.setdefault((row.contact_id, field), row.closed_at)
    back = _changed_outside(tx, connection, {contact for contact, _ in written}, since)
    came_back = sum(back.get(key, since) > at for key, at in written.items())
    return len(written), came_back


def _changed_outside(
    tx: Connection, connection: str, contact_ids: Collection[str], since: datetime
) -> dict[tuple[str, str], datetime]:
    """When the CRM last changed which field of these contacts."""
    wanted = sorted(contact_ids)
    found: dict[tuple[str, str], datetime] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        query = sa.select(contact_changes.c.contact_id, contact_changes.c.field, contact_changes.c.at).where(
            contact_changes.c.connection == connection,
            contact_changes.c.contact_id.in_(wanted[start : start + _AT_ONCE]),
            contact_changes.c.side == "external",
            contact_changes.c.at >= since,
        )
        for row in tx.execute(query.order_by(contact_changes.c.at)):
            found[row.contact_id, row.field] = row.at
    return found
