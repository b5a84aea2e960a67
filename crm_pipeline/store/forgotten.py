"""The forgotten: digests of names that nothing is kept of, nor made anew by a sync."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store.tables import (
    conflicts,
    contact_aliases,
    contact_changes,
    contacts,
    external_records,
    forgotten,
    intents,
    links,
    rejects,
    webhook_events,
)

_TOGETHER = 500
"""Names in one query."""
_ANY = sa.select(
    sa.exists().where(forgotten.c.connection == sa.bindparam("connection"))
)  # asked with each webhook


def remember(tx: Connection, connection: str, names: Collection[str]) -> None:
    """These are one person's ids, here and in the CRM. Only digests are kept."""
    readmit(tx, connection, names)
    person = uuid.uuid4().hex
    rows = [
        {"connection": connection, "digest": digest, "person": person} for digest in {*map(_digest, names)}
    ]
    if rows:
        tx.execute(forgotten.insert(), rows)


def among(tx: Connection, connection: str, names: Iterable[str]) -> set[str]:
    """Those of these names that are forgotten."""
    if not any_of(tx, connection):
        return set()
    by_digest = {_digest(name): name for name in names}
    return {by_digest[digest] for digest in _known(tx, connection, by_digest, forgotten.c.digest)}


def readmit(tx: Connection, connection: str, names: Collection[str]) -> bool:
    """The people behind these names are known again, by all their names; whether there were any."""
    people = _known(tx, connection, map(_digest, names), forgotten.c.person)
    if people:
        tx.execute(forgotten.delete().where(forgotten.c.person.in_(people)))
    return bool(people)


def any_of(tx: Connection, connection: str) -> bool:
    """Whether anybody is."""
    return bool(tx.execute(_ANY, {"connection": connection}).scalar_one())


def erase(tx: Connection, connection: str, contact_ids: Collection[str], names: Collection[str]) -> int:
    """Remove every row about these contacts, and about records and events of these names; how many."""
    ids, others = sorted(contact_ids), sorted(names)
    held = (
        (contacts, contacts.c.id.in_(ids)),
        (contact_aliases, contact_aliases.c.alias.in_(ids) | contact_aliases.c.contact_id.in_(ids)),
        (links, links.c.contact_id.in_(ids) | links.c.external_id.in_(others)),
        (external_records, external_records.c.external_id.in_(others)),
        (webhook_events, webhook_events.c.contact_id.in_(ids)),
        (webhook_events, webhook_events.c.external_id.in_(others) | webhook_events.c.event_id.in_(others)),
        (intents, intents.c.contact_id.in_(ids) | intents.c.external_id.in_(others)),
        (contact_changes, contact_changes.c.contact_id.in_(ids)),
        (conflicts, conflicts.c.contact_id.in_(ids)),
        (rejects, rejects.c.contact_id.in_(ids) | rejects.c.key.in_([*ids, *others])),
    )
    number = 0
    for table, condition in held:
        ours = [table.c.connection == connection] if "connection" in table.c else []
        number += tx.execute(table.delete().where(condition, *ours)).rowcount
    return number


def _known(tx: Connection, connection: str, digests: Iterable[str], column: sa.Column[str]) -> set[str]:
    listed = list(digests)
    found: set[str] = set()
    for start in range(0, len(listed), _TOGETHER):
        query = sa.select(column).where(
            forgotten.c.connection == connection,
            forgotten.c.digest.in_(listed[start : start + _TOGETHER]),
        )
        found.update(tx.execute(query).scalars())
    return found


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
