"""Intents: CRM writes decided and stored before they are made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store import bulk
from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.raw import Columns
from crm_pipeline.store.tables import intents


class Intent(NamedTuple):  # a frozen dataclass takes three times as long to make
    """One CRM write: which contact, what it held there before, what is sent."""

    id: str
    contact_id: str
    external_id: str | None
    before: dict[str, Any]
    sent: dict[str, Any]
    contact_version: int
    created_at: datetime
    closed_at: datetime | None = None
    job: str | None = None
    """The CRM's job that carries it, where one does."""


_COLUMNS = Columns(
    [
        intents.c.id,
        intents.c.contact_id,
        intents.c.external_id,
        intents.c.before,
        intents.c.sent,
        intents.c.contact_version,
        intents.c.created_at,
        intents.c.closed_at,
        intents.c.job,
    ]
)


# Made once, as those of contacts.
_OURS = (
    sa.select(*_COLUMNS.raw)
    .where(intents.c.connection == sa.bindparam("connection"))
    .order_by(intents.c.created_at)
)
_ALL_OPEN = _OURS.where(intents.c.state == "open")
_OPEN_OF = _ALL_OPEN.where(one_of(intents.c.contact_id, "ids"))
_CLOSE = (
    intents.update()
    .where(one_of(intents.c.id, "ids"))
    .values(state=sa.bindparam("new_state"), closed_at=sa.bindparam("at", type_=intents.c.closed_at.type))
)


def store(tx: Connection, connection: str, new: Iterable[Intent], run_id: str) -> None:
    """Store intents, open."""
    rows = [
        {
            "id": intent.id,
            "connection": connection,
            "contact_id": intent.contact_id,
            "external_id": intent.external_id,
            "before": intent.before,
            "sent": intent.sent,
            "contact_version": intent.contact_version,
            "state": "open",
            "run_id": run_id,
            "created_at": intent.created_at,
        }
        for intent in new
    ]
    if rows:
        bulk.insert(tx, intents, rows)


def close(tx: Connection, states: Sequence[tuple[str, str]], at: datetime) -> None:
    """Say what became of intents: id and state."""
    ids: dict[str, list[str]] = {}
    for key, state in states:
        ids.setdefault(state, []).append(key)
    for state, some in ids.items():
        tx.execute(_CLOSE, {"ids": some, "new_state": state, "at": at})


def name_records(tx: Connection, found: Sequence[tuple[str, str | None]]) -> None:
    """Say which records these intents turned out to be about: id and external id."""
    if found:
        statement = (
            intents.update()
            .where(intents.c.id == sa.bindparam("key"))
            .values(external_id=sa.bindparam("new_external_id"))
        )
        tx.execute(statement, [{"key": key, "new_external_id": external_id} for key, external_id in found])


def name_job(tx: Connection, ids: Iterable[str], job: str | None) -> None:
    """Say which of the CRM's jobs carries these writes; None: none does any more."""
    statement = (
        intents.update().where(intents.c.id == sa.bindparam("key")).values(job=sa.bindparam("new_job"))
    )
    tx.execute(statement, [{"key": key, "new_job": job} for key in ids])


def all_open(tx: Connection, connection: str) -> list[Intent]:
    """Writes nobody knows the end of."""
    return [Intent(*row) for row in _COLUMNS.rows(tx, _ALL_OPEN, {"connection": connection})]


def open_of(tx: Connection, connection: str, contact_ids: Collection[str]) -> dict[str, Intent]:
    """Open intents by contact; there is at most one for each."""
    if not contact_ids:
        return {}
    rows = _COLUMNS.rows(tx, _OPEN_OF, {"connection": connection, "ids": list(contact_ids)})
    return {intent.contact_id: intent for intent in (Intent(*row) for row in rows)}


def confirmed_since(
    tx: Connection, connection: str, contact_ids: Collection[str], since: datetime
) -> list[Intent]:
    """Writes to these contacts' records that were confirmed at or after a moment."""
    if not contact_ids:
        return []
    conditions = (
        intents.c.state == "confirmed",
        one_of(intents.c.contact_id, contact_ids),
        intents.c.closed_at >= since,
    )
    return _load(tx, connection, *conditions)


def refused_versions(tx: Connection, connection: str, contact_ids: Collection[str]) -> dict[str, int]:
    """The newest version of each contact that the CRM would not take; those it never refused are left out."""
    query = (
        sa.select(intents.c.contact_id, sa.func.max(intents.c.contact_version))
        .where(
            intents.c.connection == connection,
            intents.c.state == "refused",
            one_of(intents.c.contact_id, contact_ids),
        )
        .group_by(intents.c.contact_id)
    )
    return {row[0]: row[1] for row in tx.execute(query)}


def _load(tx: Connection, connection: str, *conditions: sa.ColumnElement[bool]) -> list[Intent]:
    return [Intent(*row) for row in _COLUMNS.rows(tx, _OURS.where(*conditions), {"connection": connection})]
