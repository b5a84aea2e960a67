"""The forgotten: digests of names that nothing is kept of, nor made anew by a sync."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store import bulk
from crm_pipeline.store.bulk import one_of
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
        bulk.insert(tx, forgotten, rows)


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
        tx.execute(forgotten.delete().where(one_of(forgotten.c.person, people)))
    return bool(people)


def any_of(tx: Connection, connection: str) -> bool:
    """Whether anybody is."""
    return bool(tx.execute(_ANY, {"connection": connection}).scalar_one())


def erase(tx: Connection, connection: str, contact_ids: Collection[str], names: Collection[str]) -> int:
    """Remove every row about these contacts, and about records and events of these names; how many."""
    ids, others = sorted(contact_ids), sorted(names)
    held = (
        (contacts, one_of(contacts.c.id, ids)),
        (contact_aliases, one_of(contact_aliases.c.alias, ids) | one_of(contact_aliases.c.contact_id, ids)),
        (links, one_of(links.c.contact_id, ids) | one_of(links.c.external_id, others)),
        (external_records, one_of(external_records.c.external_id, others)),
        (webhook_events, one_of(webhook_events.c.contact_id, ids)),
        (
            webhook_events,
            one_of(webhook_events.c.external_id, others) | one_of(webhook_events.c.event_id, others),
        ),
        (intents, one_of(intents.c.contact_id, ids) | one_of(intents.c.external_id, others)),
        (contact_changes, one_of(contact_changes.c.contact_id, ids)),
        (conflicts, one_of(conflicts.c.contact_id, ids)),
        (rejects, one_of(rejects.c.contact_id, ids) | one_of(rejects.c.key, [*ids, *others])),
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
            one_of(forgotten.c.digest, listed[start : start + _TOGETHER]),
        )
        found.update(tx.execute(query).scalars())
    return found


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
