"""The landing table of webhook events: each as it came, until it has been applied."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store import bulk
from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.tables import webhook_events as events


class NewEvent(NamedTuple):
    """An event that has just come in."""

    event_id: str
    request_id: str
    received_at: datetime
    payload: str
    content_hash: str
    contact_id: str | None
    external_id: str | None
    action: str
    """What applying it would do to the contact as it is now; ``rejected`` when nothing can."""
    outcome: str | None
    """Where it has ended already; None while it waits to be applied."""
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True)
class LandedEvent:
    """An event that waits to be applied."""

    id: int
    event_id: str
    received_at: datetime
    payload: str
    external_id: str | None
    attempts: int


class StoredEvent(NamedTuple):
    """What is remembered of an event."""

    event_id: str
    content_hash: str
    contact_id: str | None
    action: str
    outcome: str | None
    reasons: dict[str, str] | None
    received_at: datetime
    applied_at: datetime | None
    attempts: int
    run_id: str | None

    @property
    def effect(self) -> str:
        """What became of it; while it waits, what applying it was to do."""
        return self.outcome or self.action

    @property
    def status(self) -> Literal["landed", "applied", "rejected"]:
        """How far it has come."""
        if self.outcome is None:
            return "landed"
        return "rejected" if self.outcome == "rejected" else "applied"


class Unapplied(NamedTuple):
    """Events that wait."""

    number: int
    oldest_at: datetime | None
    """When the one that has waited longest was received."""


_STORED = tuple(events.c[name] for name in StoredEvent._fields)
_LANDED = tuple(events.c[name] for name in LandedEvent.__dataclass_fields__)


# Made once: to make them anew cost as much as to execute them, with each webhook.
_NEWEST = sa.select(*_STORED).where(
    events.c.id.in_(
        sa.select(sa.func.max(events.c.id))
        .where(
            events.c.connection == sa.bindparam("name"),
            one_of(events.c.contact_id, "ids"),
        )
        .group_by(events.c.contact_id)
    )
)
_NEWEST_ABOUT = sa.select(events.c.external_id, *_STORED).where(
    events.c.id.in_(
        sa.select(sa.func.max(events.c.id))
        .where(events.c.connection == sa.bindparam("name"), one_of(events.c.external_id, "ids"))
        .group_by(events.c.external_id)
    )
)
_BY_EVENT_ID = sa.select(*_STORED).where(
    events.c.connection == sa.bindparam("name"), one_of(events.c.event_id, "ids")
)
_TURN = sa.text("SELECT pg_advisory_xact_lock(:lock, hashtext(:name))")
_LOCK = 0x63726D  # any number, the same in every version of this program


def wait_for_turn(tx: Connection, connection: str) -> None:
    """Let nobody else land events of a connection until this transaction ends, and see all that they landed.

    Writers to SQLite take turns as it is.
    """
    if tx.dialect.name == "postgresql":
        tx.execute(_TURN, {"lock": _LOCK, "name": connection})


def insert(tx: Connection, connection: str, new: Iterable[NewEvent]) -> None:
    """Store events."""
    rows = [
        {
            "connection": connection,
            "event_id": event.event_id,
            "request_id": event.request_id,
            "received_at": event.received_at,
            "payload": event.payload,
            "content_hash": event.content_hash,
            "contact_id": event.contact_id,
            "external_id": event.external_id,
            "action": event.action,
            "outcome": event.outcome,
            "reasons": event.reasons or None,
            "attempts": 0,
        }
        for event in new
    ]
    if rows:
        bulk.insert(tx, events, rows)


def by_event_id(tx: Connection, connection: str, event_ids: Collection[str]) -> dict[str, StoredEvent]:
    """Events of these names."""
    if not event_ids:
        return {}
    rows: Iterable[Any] = tx.execute(_BY_EVENT_ID, {"name": connection, "ids": list(event_ids)})
    return {row[0]: StoredEvent(*row) for row in rows}


def newest_of(tx: Connection, connection: str, contact_ids: Collection[str]) -> dict[str, StoredEvent]:
    """The newest event about each contact."""
    if not contact_ids:
        return {}
    rows: Iterable[Any] = tx.execute(_NEWEST, {"name": connection, "ids": list(contact_ids)})
    found = [StoredEvent(*row) for row in rows]
    return {str(event.contact_id): event for event in found}


def newest_about(tx: Connection, connection: str, external_ids: Collection[str]) -> dict[str, StoredEvent]:
    """The newest event about each record."""
    if not external_ids:
        return {}
    rows: Iterable[Any] = tx.execute(_NEWEST_ABOUT, {"name": connection, "ids": list(external_ids)})
    return {row[0]: StoredEvent(*row[1:]) for row in rows}


def waiting(tx: Connection, connection: str, now: datetime, limit: int) -> list[LandedEvent]:
    """The oldest events that have not been applied and are due."""
    query = sa.select(*_LANDED).where(*_due(connection, now)).order_by(events.c.id).limit(limit)
    rows: Iterable[Any] = tx.execute(query)
    return [LandedEvent(*row) for row in rows]


def count_waiting(tx: Connection, connection: str, now: datetime) -> int:
    """How many events are due."""
    return tx.execute(_COUNT_WAITING, {"connection": connection, "now": now}).scalar_one()


def due_by_action(
    tx: Connection, connection: str, now: datetime, since: datetime | None, until: datetime | None
) -> dict[str, int]:
    """What was expected of events that are due, and of how many; only of those received in a window."""
    where = list(_due(connection, now))
    if since is not None:
        where.append(events.c.received_at >= since)
    if until is not None:
        where.append(events.c.received_at < until)
    query = sa.select(events.c.action, sa.func.count().label("number")).where(*where)
    return {row.action: row.number for row in tx.execute(query.group_by(events.c.action))}


def unapplied(tx: Connection, connection: str) -> Unapplied:
    """Events that have not been applied: those that are due, and those that are tried again later."""
    query = sa.select(sa.func.count(), sa.func.min(events.c.received_at)).where(
        events.c.connection == connection, events.c.outcome.is_(None)
    )
    return Unapplied(*tx.execute(query).one())


def waiting_about(tx: Connection, connection: str) -> set[str]:
    """Contacts and records, by id, that events which have not been applied are about."""
    query = sa.select(events.c.contact_id, events.c.external_id).where(
        events.c.connection == connection, events.c.outcome.is_(None)
    )
    return {name for row in tx.execute(query) for name in row if name is not None}


def _due(connection: Any, now: Any) -> tuple[sa.ColumnElement[bool], ...]:
    """Those that wait: of a connection and at a moment, or of parameters for them."""
    return (
        events.c.connection == connection,
        events.c.outcome.is_(None),
        sa.or_(events.c.next_attempt_at.is_(None), events.c.next_attempt_at <= now),
    )


# Made once: each run asks, mostly for nothing.
_COUNT_WAITING = (
    sa.select(sa.func.count())
    .select_from(events)
    .where(*_due(sa.bindparam("connection"), sa.bindparam("now", type_=events.c.next_attempt_at.type)))
)


_BELONG = events.update().where(events.c.id == sa.bindparam("row")).values(contact_id=sa.bindparam("owner"))


def settle(tx: Connection, outcomes: Sequence[tuple[int, str]], run_id: str, at: datetime) -> None:
    """Say where events ended; why, if they were rejected, is to be explained."""
    rows: dict[str, list[int]] = {}
    for row, outcome in outcomes:
        rows.setdefault(outcome, []).append(row)
    for outcome, ids in rows.items():
        ended = {
            "outcome": outcome,
            "applied_at": at,
            "run_id": run_id,
            "next_attempt_at": None,
            "reasons": None,  # those of an earlier attempt
        }
        tx.execute(events.update().where(one_of(events.c.id, ids)).values(ended))


def explain(tx: Connection, reasons: Iterable[tuple[int, dict[str, str]]]) -> None:
    """Say why events were rejected."""
    for row_id, why in reasons:
        tx.execute(events.update().where(events.c.id == row_id).values(reasons=why))


def begin_attempt(tx: Connection, row_ids: Collection[int], due: datetime | None) -> None:
    """Count an attempt before it is made: one that kills its worker has been counted.

    ``due``: when there may be another, should nothing come of this one.
    """
    begun = {"attempts": events.c.attempts + 1, "next_attempt_at": due}
    tx.execute(events.update().where(one_of(events.c.id, row_ids)).values(begun))


def take_back_attempt(tx: Connection, row_ids: Collection[int]) -> None:
    """Let an attempt that has been counted not count."""
    tx.execute(events.update().where(one_of(events.c.id, row_ids)).values(attempts=events.c.attempts - 1))


def some_record(tx: Connection, connection: str, besides: Collection[str]) -> str | None:
    """One of the records that waiting events name, ``besides`` these, drawn by lot."""
    named = (events.c.external_id.is_not(None), events.c.external_id.not_in(besides))
    waiting = sa.select(events.c.external_id).where(
        events.c.connection == connection, events.c.outcome.is_(None), *named
    )
    return tx.execute(waiting.order_by(sa.func.random()).limit(1)).scalar()


def postpone_all_about_records(tx: Connection, connection: str, until: datetime) -> None:
    """Let everything that names a record wait at least so long."""
    where = (
        events.c.connection == connection,
        events.c.outcome.is_(None),
        events.c.external_id.is_not(None),
        sa.or_(events.c.next_attempt_at.is_(None), events.c.next_attempt_at < until),
    )
    tx.execute(events.update().where(*where).values(next_attempt_at=until))


def postpone(tx: Connection, row_ids: Collection[int], until: datetime) -> None:
    """Try these again later."""
    tx.execute(events.update().where(one_of(events.c.id, row_ids)).values(next_attempt_at=until))


def belong(tx: Connection, owners: Mapping[int, str]) -> None:
    """Say whom events are about, by the contact's id."""
    rows = [{"row": row_id, "owner": contact_id} for row_id, contact_id in owners.items()]
    if rows:
        tx.execute(_BELONG, rows)


def wait_again(tx: Connection, connection: str, event_ids: Collection[str]) -> None:
    """Let rejected events be applied once more."""
    where = (
        events.c.connection == connection,
        one_of(events.c.event_id, event_ids),
        events.c.outcome == "rejected",
    )
    tx.execute(events.update().where(*where).values(outcome=None, attempts=0, next_attempt_at=None))


def restore(
    tx: Connection, connection: str, event_id: str, payload: str, content_hash: str, outcome: str | None
) -> None:
    """Let an event say something else, and end or wait."""
    where = (events.c.connection == connection, events.c.event_id == event_id)
    tx.execute(
        events.update()
        .where(*where)
        .values(payload=payload, content_hash=content_hash, outcome=outcome, attempts=0, next_attempt_at=None)
    )


def each_payload(tx: Connection, connection: str) -> Iterator[tuple[str, str]]:
    """Name and payload of every event."""
    query = sa.select(events.c.event_id, events.c.payload).where(events.c.connection == connection)
    for row in tx.execute(query, execution_options={"yield_per": 1000}):
        yield row.event_id, row.payload


def payload(tx: Connection, connection: str, event_id: str) -> str | None:
    """What came in, as JSON text."""
    query = sa.select(events.c.payload).where(
        events.c.connection == connection, events.c.event_id == event_id
    )
    return tx.execute(query).scalar_one_or_none()
