"""The ledger: what changed in contacts, and where the two sides disagreed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store import bulk
from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.tables import conflicts, contact_changes


class Change(NamedTuple):  # a frozen dataclass takes three times as long to make
    """One field of one contact got another value."""

    contact_id: str
    field: str
    old: Any
    new: Any
    at: datetime
    side: str
    rule: str
    record_id: int | None = None
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class PastChange:
    """A change as it is remembered."""

    at: datetime
    field: str
    """``*`` where it is about the whole contact."""
    side: str
    """Whose change it was: external or internal."""
    rule: str
    old: Any
    new: Any
    run_id: str
    record_id: int | None
    """The landed record it came with."""
    event_id: int | None
    """The webhook it came with."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides changed one field differently."""

    contact_id: str
    field: str
    external: Any
    internal: Any
    policy: str
    """The field's, or ``NOT_TAKEN``."""
    winner: str | None
    record_id: int | None


NOT_TAKEN = "not taken"
"""In place of a policy: the CRM took our write, and still holds what it held before."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A conflict as it is remembered."""

    id: int
    contact_id: str
    field: str
    external: Any
    internal: Any
    policy: str
    opened_at: datetime
    run_id: str
    """The run that met it first."""
    winner: str | None
    """The side whose value stands; ``agreed`` or ``moot`` where none had to win; None while it waits."""
    settled_at: datetime | None

    @property
    def open(self) -> bool:
        """Whether it waits for a person."""
        return self.settled_at is None


_ENTRY = (
    conflicts.c.id,
    conflicts.c.contact_id,
    conflicts.c.field,
    conflicts.c.external,
    conflicts.c.internal,
    conflicts.c.policy,
    conflicts.c.opened_at,
    conflicts.c.run_id,
    conflicts.c.winner,
    conflicts.c.settled_at,
)


_IS_OPEN = conflicts.c.state == "open"
# Made once, as those of contacts.
_OPEN_OF = (
    sa.select(*_ENTRY)
    .where(
        conflicts.c.connection == sa.bindparam("connection"), _IS_OPEN, one_of(conflicts.c.contact_id, "ids")
    )
    .order_by(conflicts.c.id)
)


def write_changes(tx: Connection, connection: str, changes: Iterable[Change], run_id: str) -> None:
    """Add to the history."""
    rows = [
        {
            "connection": connection,
            "contact_id": change.contact_id,
            "field": change.field,
            "old": change.old,
            "new": change.new,
            "at": change.at,
            "side": change.side,
            "rule": change.rule,
            "run_id": run_id,
            "record_id": change.record_id,
            "event_id": change.event_id,
        }
        for change in changes
    ]
    if rows:
        bulk.insert(tx, contact_changes, rows)


def history(tx: Connection, connection: str, contact_ids: Collection[str]) -> list[PastChange]:
    """Changes of contacts with these ids, the newest last."""
    query = (
        sa.select(*(contact_changes.c[field.name] for field in fields(PastChange)))
        .where(contact_changes.c.connection == connection, one_of(contact_changes.c.contact_id, contact_ids))
        .order_by(contact_changes.c.at, contact_changes.c.id)
    )
    rows: Iterable[Any] = tx.execute(query)
    return [PastChange(*row) for row in rows]


def contacts_changed(tx: Connection, connection: str, run_id: str, limit: int) -> list[str]:
    """Ids of contacts that got a value from the CRM in a run, in that order, the first so many."""
    query = (
        sa.select(contact_changes.c.contact_id)
        .where(
            contact_changes.c.connection == connection,
            contact_changes.c.run_id == run_id,
            contact_changes.c.side == "external",
        )
        .group_by(contact_changes.c.contact_id)
        .order_by(sa.func.min(contact_changes.c.id))
        .limit(limit)
    )
    return list(tx.execute(query).scalars())


def write_conflicts(
    tx: Connection, connection: str, found: Sequence[Conflict], run_id: str, at: datetime
) -> None:
    """Add conflicts; one that is already open gets the newer values."""
    waiting = {(conflict.contact_id, conflict.field) for conflict in found if conflict.winner is None}
    still_open = open_fields(tx, connection, {contact for contact, _ in waiting})
    rows = []
    for conflict in found:
        if conflict.winner is None and conflict.field in still_open.get(conflict.contact_id, {}):
            _refresh(tx, connection, conflict)
            continue
        rows.append(
            {
                "connection": connection,
                "contact_id": conflict.contact_id,
                "field": conflict.field,
                "external": conflict.external,
                "internal": conflict.internal,
                "policy": conflict.policy,
                "winner": conflict.winner,
                "state": "settled" if conflict.winner else "open",
                "run_id": run_id,
                "record_id": conflict.record_id,
                "opened_at": at,
                "settled_at": at if conflict.winner else None,
            }
        )
    if rows:
        bulk.insert(tx, conflicts, rows)


def open_fields(
    tx: Connection, connection: str, contact_ids: Collection[str]
) -> dict[str, dict[str, LedgerEntry]]:
    """Fields that wait for a person, by contact."""
    if not contact_ids:
        return {}
    held: dict[str, dict[str, LedgerEntry]] = {}
    parameters = {"connection": connection, "ids": list(contact_ids)}
    rows: Iterable[Any] = tx.execute(_OPEN_OF, parameters).all()
    for row in rows:
        conflict = LedgerEntry(*row)
        held.setdefault(conflict.contact_id, {})[conflict.field] = conflict
    return held


def entry(tx: Connection, connection: str, conflict_id: int) -> LedgerEntry | None:
    """One conflict, settled or not."""
    return next(iter(_load(tx, connection, conflicts.c.id == conflict_id)), None)


def open_conflicts(tx: Connection, connection: str, limit: int | None = None) -> list[LedgerEntry]:
    """Conflicts that wait, oldest first."""
    return _load(tx, connection, _IS_OPEN, limit=limit)


def newest(tx: Connection, connection: str, limit: int) -> list[LedgerEntry]:
    """Conflicts, settled or not; the last so many, oldest first."""
    return _load(tx, connection, limit=limit, newest=True)[::-1]


def count(tx: Connection, connection: str) -> int:
    """How many conflicts are remembered, settled or not."""
    query = sa.select(sa.func.count()).where(conflicts.c.connection == connection)
    return tx.execute(query).scalar_one()


def _load(
    tx: Connection,
    connection: str,
    *conditions: sa.ColumnElement[bool],
    limit: int | None = None,
    newest: bool = False,
) -> list[LedgerEntry]:
    order = conflicts.c.id.desc() if newest else conflicts.c.id
    query = (
        sa.select(*_ENTRY)
        .where(conflicts.c.connection == connection, *conditions)
        .order_by(order)
        .limit(limit)
    )
    rows: Iterable[Any] = tx.execute(query)
    return [LedgerEntry(*row) for row in rows]


def show_internal(tx: Connection, conflict_id: int, value: Any) -> None:
    """An open conflict shows what the contact holds by now."""
    tx.execute(conflicts.update().where(conflicts.c.id == conflict_id).values(internal=value))


def settle(tx: Connection, conflict_ids: Collection[int], winner: str, at: datetime) -> None:
    """Close open conflicts."""
    if conflict_ids:
        statement = conflicts.update().where(one_of(conflicts.c.id, conflict_ids))
        tx.execute(statement.values(state="settled", winner=winner, settled_at=at))


def _refresh(tx: Connection, connection: str, conflict: Conflict) -> None:
    statement = conflicts.update().where(
        conflicts.c.connection == connection,
        conflicts.c.contact_id == conflict.contact_id,
        conflicts.c.field == conflict.field,
        conflicts.c.state == "open",
    )
    tx.execute(statement.values(external=conflict.external, internal=conflict.internal))


def count_open(tx: Connection, connection: str) -> int:
    """How many fields wait for a person."""
    query = sa.select(sa.func.count()).where(
        conflicts.c.connection == connection, conflicts.c.state == "open"
    )
    return tx.execute(query).scalar_one()
