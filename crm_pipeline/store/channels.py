"""Notification channels: what was asked of a connection's CRM, and when it ends."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store.tables import channels


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel as it was last made or renewed."""

    channel_id: str
    asked: str
    """Short digest of the address and the token: tells that they changed, and no more."""
    renewed_at: datetime
    expires_at: datetime


def load(tx: Connection, name: str) -> ChannelRow | None:
    """The connection's channel; None where none was made."""
    query = sa.select(
        channels.c.channel_id, channels.c.asked, channels.c.renewed_at, channels.c.expires_at
    ).where(channels.c.connection == name)
    row = tx.execute(query).one_or_none()
    return None if row is None else ChannelRow(*row)


def save(tx: Connection, name: str, row: ChannelRow) -> None:
    """Keep a channel in place of the one before."""
    tx.execute(channels.delete().where(channels.c.connection == name))
    tx.execute(channels.insert().values(connection=name, **asdict(row)))
