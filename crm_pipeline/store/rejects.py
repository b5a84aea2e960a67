"""Rejects: records and contacts that could not go through, each with its reasons."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline import jsonio
from crm_pipeline.store import bulk, landing, webhooks
from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.tables import external_records, rejects

Source: TypeAlias = Literal["pull", "webhook", "push"]


@dataclass(frozen=True, slots=True)
class Reject:
    """One rejected thing."""

    id: int
    source: Source
    key: str
    """The record's external id (pull), the event's id (webhook), or the contact's id (push)."""
    reasons: dict[str, str]
    attempts: int
    next_attempt_at: datetime | None
    """When it is tried again by itself; None where only a change or a replay can help."""
    record_id: int | None
    contact_id: str | None
    """The contact a record claims to be, where that is the trouble."""
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class NewReject:
    """Something that has just been rejected."""

    source: Source
    key: str
    reasons: dict[str, str]
    next_attempt_at: datetime | None = None
    record_id: int | None = None
    contact_id: str | None = None


_COLUMNS = (
    rejects.c.id,
    rejects.c.source,
    rejects.c.key,
    rejects.c.reasons,
    rejects.c.attempts,
    rejects.c.next_attempt_at,
    rejects.c.record_id,
    rejects.c.contact_id,
    rejects.c.first_at,
    rejects.c.last_at,
)


# Made once, as those of contacts.
_THESE = (
    rejects.c.connection == sa.bindparam("connection"),
    rejects.c.source == sa.bindparam("source"),
    one_of(rejects.c.key, "ids"),
)
_ATTEMPTS = sa.select(rejects.c.key, rejects.c.attempts).where(*_THESE)
_CLEAR = rejects.delete().where(*_THESE)


def write(tx: Connection, connection: str, new: Iterable[NewReject], run_id: str, at: datetime) -> None:
    """Store rejects; one that was rejected before counts another attempt."""
    rows = [
        {
            "connection": connection,
            "source": reject.source,
            "key": reject.key,
            "reasons": reject.reasons,
            "attempts": 1,
            "next_attempt_at": reject.next_attempt_at,
            "record_id": reject.record_id,
            "contact_id": reject.contact_id,
            "run_id": run_id,
            "first_at": at,
            "last_at": at,
        }
        for reject in new
    ]
    if not rows:
        return
    insert = bulk.upsert(tx, rejects)
    taken = ("reasons", "next_attempt_at", "record_id", "contact_id", "run_id", "last_at")
    tx.execute(
        insert.on_conflict_do_update(
            index_elements=[rejects.c.connection, rejects.c.source, rejects.c.key],
            set_={name: insert.excluded[name] for name in taken} | {"attempts": rejects.c.attempts + 1},
        ),
        rows,
    )


def attempts(tx: Connection, connection: str, source: Source, keys: Collection[str]) -> dict[str, int]:
    """How often these were rejected so far; those never rejected are left out."""
    if not keys:
        return {}
    parameters = {"connection": connection, "source": source, "ids": list(keys)}
    return {row.key: row.attempts for row in tx.execute(_ATTEMPTS, parameters)}


def clear(tx: Connection, connection: str, source: Source, keys: Collection[str]) -> None:
    """These went through after all."""
    if keys:
        tx.execute(_CLEAR, {"connection": connection, "source": source, "ids": list(keys)})


def dismiss(tx: Connection, connection: str, ids: Collection[int], at: datetime) -> int:
    """Forget rejects; how many there were. Their records count as skipped from now on."""
    chosen = load(tx, connection, ids)
    if not chosen:
        return 0
    records = [reject.record_id for reject in chosen if reject.record_id is not None]
    tx.execute(
        external_records.update()
        .where(one_of(external_records.c.id, records), external_records.c.outcome == "rejected")
        .values(outcome="skipped", applied_at=at)
    )
    tx.execute(rejects.delete().where(one_of(rejects.c.id, [reject.id for reject in chosen])))
    return len(chosen)


def load(
    tx: Connection, connection: str, ids: Collection[int] | None = None, limit: int | None = None
) -> list[Reject]:
    """Open rejects, oldest first."""
    query = sa.select(*_COLUMNS).where(rejects.c.connection == connection).order_by(rejects.c.id).limit(limit)
    if ids is not None:
        query = query.where(one_of(rejects.c.id, ids))
    rows: Iterable[Any] = tx.execute(query)
    return [Reject(*row) for row in rows]


def count(tx: Connection, connection: str) -> dict[str, int]:
    """How many are open, by source."""
    query = (
        sa.select(rejects.c.source, sa.func.count().label("number"))
        .where(rejects.c.connection == connection)
        .group_by(rejects.c.source)
    )
    return {row.source: row.number for row in tx.execute(query)}


def count_claims(tx: Connection, connection: str) -> int:
    """How many records are rejected because another one is linked to the contact they claim to be."""
    query = sa.select(sa.func.count()).where(
        rejects.c.connection == connection, rejects.c.source != "push", rejects.c.contact_id.is_not(None)
    )
    return tx.execute(query).scalar_one()


def by_reason(tx: Connection, connection: str) -> list[tuple[str, dict[str, str], int]]:
    """Sources and reasons of what is rejected, and how many share them."""
    shown = sa.cast(rejects.c.reasons, sa.Text)  # PostgreSQL compares no json
    query = (
        sa.select(rejects.c.source, shown.label("reasons"), sa.func.count().label("number"))
        .where(rejects.c.connection == connection)
        .group_by(rejects.c.source, shown)
    )
    return [(row.source, jsonio.loads(row.reasons), row.number) for row in tx.execute(query)]


def reasons(tx: Connection, connection: str, source: Source, key: str) -> dict[str, str]:
    """Why this is rejected; empty when it is not."""
    query = sa.select(rejects.c.reasons).where(
        rejects.c.connection == connection, rejects.c.source == source, rejects.c.key == key
    )
    return tx.execute(query).scalar_one_or_none() or {}


def free(tx: Connection, connection: str, contact_ids: Collection[str]) -> None:
    """No record shows these ids any more: what was rejected for claiming one of them is applied once more."""
    if not contact_ids:
        return
    chosen = (rejects.c.connection == connection, one_of(rejects.c.contact_id, contact_ids))
    found = tx.execute(sa.select(rejects.c.source, rejects.c.key, rejects.c.record_id).where(*chosen)).all()
    records = [row.record_id for row in found if row.record_id is not None]
    landing.wait_again(tx, connection, ids=records)
    webhooks.wait_again(tx, connection, [row.key for row in found if row.source == "webhook"])


def due_now(tx: Connection, connection: str, ids: Collection[int]) -> None:
    """Let rejected pushes be tried at once."""
    statement = rejects.update().where(rejects.c.connection == connection, one_of(rejects.c.id, ids))
    tx.execute(statement.values(next_attempt_at=None))
