"""Links: which contact is which record, and what each side held at the last agreement."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store import bulk
from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.raw import Columns
from crm_pipeline.store.tables import links


@dataclass(slots=True)
class Link:
    """A pairing. Mutable: a batch works on it and saves what changed."""

    external_id: str
    contact_id: str
    internal_shadow: dict[str, Any] = field(default_factory=dict)
    external_shadow: dict[str, Any] = field(default_factory=dict)
    assumed: dict[str, list[Any]] = field(default_factory=dict)
    """Fields we wrote and the CRM has not shown since: what it held before, and the record's
    modified time as the answer told it, if it did."""
    edits: dict[str, list[Any]] = field(default_factory=dict)
    external_modified_at: datetime | None = None
    read_at: datetime | None = None
    external_deleted_at: datetime | None = None
    contact_deleted_at: datetime | None = None
    left_at: datetime | None = None
    """When a rule or a hook began to leave the record out: nothing is written to it."""


_COLUMNS = Columns(
    [
        links.c.external_id,
        links.c.contact_id,
        links.c.internal_shadow,
        links.c.external_shadow,
        links.c.assumed,
        links.c.edits,
        links.c.external_modified_at,
        links.c.read_at,
        links.c.external_deleted_at,
        links.c.contact_deleted_at,
        links.c.left_at,
    ]
)
# Made once, as those of contacts.
_OURS = sa.select(*_COLUMNS.raw).where(links.c.connection == sa.bindparam("connection"))
_BY_EXTERNAL_ID = _OURS.where(one_of(links.c.external_id, "ids"))
_OWNERS = sa.select(links.c.external_id, links.c.contact_id).where(
    links.c.connection == sa.bindparam("connection"), one_of(links.c.external_id, "ids")
)
_ORPHANED = sa.select(links.c.contact_id).where(
    links.c.connection == sa.bindparam("connection"), links.c.contact_deleted_at.is_not(None)
)
_BY_CONTACT = _OURS.where(one_of(links.c.contact_id, "ids"))


def load_by_external_id(tx: Connection, connection: str, external_ids: Collection[str]) -> list[Link]:
    """Links of these records."""
    return _load(tx, _BY_EXTERNAL_ID, connection, external_ids)


def load_by_contact(tx: Connection, connection: str, contact_ids: Collection[str]) -> list[Link]:
    """Links of these contacts."""
    return _load(tx, _BY_CONTACT, connection, contact_ids)


def owners(tx: Connection, connection: str, external_ids: Collection[str]) -> dict[str, str]:
    """Whose these records are: contact ids, by external id."""
    if not external_ids:
        return {}
    rows = tx.execute(_OWNERS, {"connection": connection, "ids": list(external_ids)}).all()
    return {row[0]: row[1] for row in rows}


def some_record(tx: Connection, connection: str, besides: Collection[str]) -> str | None:
    """One of the records that are linked, ``besides`` these, drawn by lot."""
    linked = sa.select(links.c.external_id).where(
        links.c.connection == connection, links.c.external_id.not_in(besides)
    )
    return tx.execute(linked.order_by(sa.func.random()).limit(1)).scalar()


def insert(tx: Connection, connection: str, new: Iterable[Link]) -> None:
    """Add links."""
    bulk.insert(tx, links, [_row(connection, link) for link in new])


def update(tx: Connection, connection: str, changed: Iterable[Link]) -> None:
    """Save links that exist."""
    bulk.update(tx, links, _KEY, [_row(connection, link) for link in changed])


def note_edits(tx: Connection, connection: str, noticed: Iterable[Link]) -> None:
    """Save which values of the contacts differ from what was agreed."""
    rows = [{**_key(connection, link), "edits": link.edits or None} for link in noticed]
    bulk.update(tx, links, _KEY, rows)


def note_agreed(tx: Connection, connection: str, agreed: Iterable[Link]) -> None:
    """Save what the two sides of links that exist agree on now."""
    rows = [
        {
            **_key(connection, link),
            "internal_shadow": link.internal_shadow,
            "external_shadow": link.external_shadow,
            "assumed": link.assumed or None,
            "edits": link.edits or None,
            "external_modified_at": link.external_modified_at,
        }
        for link in agreed
    ]
    bulk.update(tx, links, _KEY, rows)


def delete(tx: Connection, connection: str, external_ids: Collection[str]) -> None:
    """Forget links."""
    if external_ids:
        tx.execute(
            links.delete().where(links.c.connection == connection, one_of(links.c.external_id, external_ids))
        )


def count(tx: Connection, connection: str) -> int:
    """How many records are linked and exist."""
    where = (links.c.connection == connection, links.c.external_deleted_at.is_(None))
    return tx.execute(sa.select(sa.func.count()).select_from(links).where(*where)).scalar_one()


def each_external_id(tx: Connection, connection: str) -> Iterator[list[str]]:
    """Ids of linked records that exist, in portions."""
    query = sa.select(links.c.external_id).where(
        links.c.connection == connection, links.c.external_deleted_at.is_(None)
    )
    rows = tx.execute(query, execution_options={"yield_per": _PORTION})
    for part in rows.scalars().partitions():
        yield list(part)


_PORTION = 1000


def portion(tx: Connection, connection: str, after: str, size: int) -> list[Link]:
    """Links whatever their state, by external id: the first so many that come after one."""
    query = sa.select(*_COLUMNS.raw).where(links.c.connection == connection, links.c.external_id > after)
    return _read(tx, query.order_by(links.c.external_id).limit(size))


def orphaned(tx: Connection, connection: str) -> list[str]:
    """Ids of contacts that were deleted and whose links remain."""
    return list(tx.execute(_ORPHANED, {"connection": connection}).scalars())


def readdress(tx: Connection, connection: str, contact_id: str, new_id: str) -> None:
    """The link of one contact is another's from now on."""
    statement = links.update().where(links.c.connection == connection, links.c.contact_id == contact_id)
    tx.execute(statement.values(contact_id=new_id))


def _load(tx: Connection, query: sa.Select[Any], connection: str, ids: Collection[str]) -> list[Link]:
    return _read(tx, query, {"connection": connection, "ids": list(ids)}) if ids else []


def _read(tx: Connection, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None) -> list[Link]:
    found = []
    for row in _COLUMNS.rows(tx, query, parameters):
        link = Link(*row)
        link.assumed = link.assumed or {}
        link.edits = link.edits or {}
        found.append(link)
    return found


_KEY = ("connection", "external_id")


def _key(connection: str, link: Link) -> dict[str, Any]:
    return {"connection": connection, "external_id": link.external_id}


def _row(connection: str, link: Link) -> dict[str, Any]:
    return {
        "connection": connection,
        "external_id": link.external_id,
        "contact_id": link.contact_id,
        "internal_shadow": link.internal_shadow,
        "external_shadow": link.external_shadow,
        "assumed": link.assumed or None,
        "edits": link.edits or None,
        "external_modified_at": link.external_modified_at,
        "read_at": link.read_at,
        "external_deleted_at": link.external_deleted_at,
        "contact_deleted_at": link.contact_deleted_at,
        "left_at": link.left_at,
    }
