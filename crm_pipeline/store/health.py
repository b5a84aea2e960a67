"""Figures of the whole database, for the checks: each one query, none with a person in it but odd ids."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.tables import CURRENT, contacts, external_records, webhook_events

_CANONICAL = r"^([1-9][0-9]{6,14}@c\.us|[0-9]{5,20}@lid)$"
"""Ids that cannot be another one's spelling. SQLAlchemy teaches SQLite the operator."""
_AT_ONCE = 500


def current_records(tx: Connection, connection: str) -> dict[str | None, int]:
    """How many records, as last read, ended where; None is for those that wait."""
    outcome = external_records.c.outcome
    query = (
        sa.select(outcome, sa.func.count().label("number"))
        .where(external_records.c.connection == connection, CURRENT)
        .group_by(outcome)
    )
    return {row.outcome: row.number for row in tx.execute(query)}


def newest_read(tx: Connection, connection: str, before: datetime) -> datetime | None:
    """The newest modified time among records, as last read, that were read before a moment."""
    query = sa.select(sa.func.max(external_records.c.modified_at)).where(
        external_records.c.connection == connection,
        CURRENT,
        external_records.c.read_at < before,
    )
    newest: datetime | None = tx.execute(query).scalar_one()
    return newest


def records_by_day(tx: Connection, connection: str, since: datetime, until: datetime) -> dict[str, int]:
    """How many records, as last read, were modified on which UTC day, such as 2026-01-31."""
    of_them = (external_records.c.connection == connection, CURRENT)
    return _by_day(tx, external_records.c.modified_at, since, until, *of_them)


def events_by_day(tx: Connection, connection: str, since: datetime, until: datetime) -> dict[str, int]:
    """How many webhooks were received on which UTC day, whatever became of them."""
    return _by_day(tx, webhook_events.c.received_at, since, until, webhook_events.c.connection == connection)


def _by_day(
    tx: Connection,
    at: sa.Column[datetime],
    since: datetime,
    until: datetime,
    *of_them: sa.ColumnElement[bool],
) -> dict[str, int]:
    if tx.dialect.name == "postgresql":
        day = sa.func.to_char(sa.func.timezone("UTC", at), "YYYY-MM-DD", type_=sa.Text)
    else:
        day = sa.func.substr(at, 1, 10, type_=sa.Text)
    query = (
        sa.select(day.label("day"), sa.func.count().label("number"))
        .where(*of_them, at >= since, at < until)
        .group_by(day)
        .order_by(day)
    )
    return {row.day: row.number for row in tx.execute(query)}


def choices_in_use(tx: Connection) -> dict[tuple[str | None, str | None], int]:
    """Deal status and task status, and how many contacts have the two."""
    columns = (contacts.c.deal_status, contacts.c.status)
    query = sa.select(*columns, sa.func.count().label("number")).group_by(*columns)
    return {(row.deal_status, row.status): row.number for row in tx.execute(query)}


def uncanonical_ids(tx: Connection) -> list[str]:
    """Ids of contacts that another program stored in a spelling of its own."""
    return list(tx.execute(sa.select(contacts.c.id).where(~contacts.c.id.regexp_match(_CANONICAL))).scalars())


def known_ids(tx: Connection, ids: Collection[str]) -> set[str]:
    """Those of these ids that a contact has."""
    wanted = sorted(ids)
    found: set[str] = set()
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        found.update(tx.execute(sa.select(contacts.c.id).where(one_of(contacts.c.id, part))).scalars())
    return found
