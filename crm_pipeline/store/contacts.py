"""The contact table and the aliases its ids go by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store import bulk
from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.raw import Columns
from crm_pipeline.store.tables import ODDLY_SPELLED, contact_aliases, contacts, links, rejects


class StoredContact(NamedTuple):  # a frozen dataclass takes three times as long to make
    """A row of ``contacts``: its data by column, and the bookkeeping beside it."""

    id: str
    """The primary key, in whatever spelling it is stored."""
    data: Mapping[str, Any]
    row_version: int
    pushed_version: int
    updated_at: datetime
    archived_at: datetime | None


@dataclass(frozen=True, slots=True)
class ContactWrite:
    """Changes to one row; made only if the row is still at ``row_version``."""

    id: str
    row_version: int
    values: Mapping[str, Any]
    pushed: bool
    """Whether the CRM knows everything the row holds afterwards."""


# Made once: to make them anew costs more than to execute them, with each group of webhooks.
_BESIDE = ("row_version", "pushed_version", "updated_at", "archived_at")
_COLUMNS = Columns(
    [
        *(column for column in contacts.c if column.name not in {*_BESIDE, "created_at"}),
        *(contacts.c[name] for name in _BESIDE),
    ]
)
_DATA = _COLUMNS.names[: -len(_BESIDE)]
_LOAD = sa.select(*_COLUMNS.raw).where(one_of(contacts.c.id, "ids")).order_by(contacts.c.id)
_LOAD_LOCKED = _LOAD.with_for_update()
_RESOLVE = sa.select(contact_aliases.c.alias, contact_aliases.c.contact_id).where(
    one_of(contact_aliases.c.alias, "ids")
)
_DUE: tuple[Any, ...] = (
    # Written exactly like the condition of the partial index, so that it is used.
    sa.text("row_version <> pushed_version"),
    ~sa.exists().where(
        rejects.c.connection == sa.bindparam("connection"),
        rejects.c.source == "push",
        rejects.c.key == contacts.c.id,
        rejects.c.next_attempt_at > sa.bindparam("now", type_=rejects.c.next_attempt_at.type),
    ),
)
_TO_PUSH = (
    sa.select(contacts.c.id)
    .where(*_DUE, contacts.c.id > sa.bindparam("after"))
    .order_by(contacts.c.id)
    .limit(sa.bindparam("limit"))
)
_COUNT_TO_PUSH = sa.select(sa.func.count()).select_from(contacts).where(*_DUE)
_MARK_PUSHED = (
    contacts.update().where(one_of(contacts.c.id, "ids")).values(pushed_version=sa.bindparam("version"))
)
_ODDLY_SPELLED = (
    sa.select(contacts.c.id)
    .where(
        sa.text(ODDLY_SPELLED),
        ~sa.exists().where(contact_aliases.c.contact_id == contacts.c.id),
        ~sa.exists().where(links.c.contact_id == contacts.c.id),
        contacts.c.id > sa.bindparam("after"),
    )
    .order_by(contacts.c.id)
    .limit(sa.bindparam("limit"))
)


def load(tx: Connection, ids: Collection[str], *, lock: bool = True) -> dict[str, StoredContact]:
    """Rows by id. Unless told not to, held against other writers until the transaction ends."""
    if not ids:
        return {}
    query = _LOAD_LOCKED if lock else _LOAD
    return {stored.id: stored for stored in map(_stored, _COLUMNS.rows(tx, query, {"ids": sorted(ids)}))}


def resolve(tx: Connection, canonical_ids: Collection[str]) -> dict[str, str]:
    """Contact ids behind canonical ids that are aliases."""
    if not canonical_ids:
        return {}
    return {row.alias: row.contact_id for row in tx.execute(_RESOLVE, {"ids": list(canonical_ids)})}


def find(tx: Connection, ids: Sequence[str]) -> str | None:
    """The contact with one of these ids: the first that is its own, or else an alias."""
    behind = resolve(tx, ids)
    candidates = [*ids, *(behind[each] for each in ids if each in behind)]
    there = existing(tx, candidates)
    return next((each for each in candidates if each in there), None)


def existing(tx: Connection, ids: Collection[str]) -> set[str]:
    """Those of these ids that are a contact's own."""
    if not ids:
        return set()
    return set(tx.execute(sa.select(contacts.c.id).where(one_of(contacts.c.id, ids))).scalars())


def all_ids(tx: Connection, ids: Collection[str]) -> set[str]:
    """These ids of one contact and its aliases, without those that another contact has for its own."""
    query = sa.select(contact_aliases.c.alias).where(
        one_of(contact_aliases.c.contact_id, ids),
        ~sa.exists().where(contacts.c.id == contact_aliases.c.alias),
    )
    return {*ids, *tx.execute(query).scalars()}


def add_aliases(tx: Connection, aliases: Mapping[str, str], at: datetime) -> None:
    """Remember other ids of contacts; the newest meaning of an alias counts."""
    if aliases:
        tx.execute(contact_aliases.delete().where(one_of(contact_aliases.c.alias, aliases)))
        rows = [
            {"alias": alias, "contact_id": contact, "created_at": at} for alias, contact in aliases.items()
        ]
        bulk.insert(tx, contact_aliases, rows)


def insert(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add contacts; every row names every data column.

    Raises:
        sqlalchemy.exc.IntegrityError: another program has just added one of them.
    """
    if rows:
        bulk.insert(tx, contacts, rows)


def update(tx: Connection, writes: Iterable[ContactWrite], at: datetime) -> None:
    """Change rows of ours; the version moves, so that the trigger leaves them alone."""
    groups: dict[tuple[tuple[str, ...], bool], list[ContactWrite]] = defaultdict(list)
    for write in writes:
        groups[tuple(sorted(write.values)), write.pushed].append(write)
    for (columns, pushed), group in groups.items():
        assigned = {
            column: sa.bindparam(f"new_{column}", type_=contacts.c[column].type) for column in columns
        }
        version = contacts.c.row_version + 1
        statement = (
            contacts.update()
            .where(contacts.c.id == sa.bindparam("key"), contacts.c.row_version == sa.bindparam("version"))
            .values(
                **assigned,
                row_version=version,
                pushed_version=version if pushed else contacts.c.pushed_version,
                updated_at=at,
            )
        )
        tx.execute(
            statement,
            [
                {
                    "key": write.id,
                    "version": write.row_version,
                    **{f"new_{column}": write.values[column] for column in columns},
                }
                for write in group
            ],
        )


def mark_pushed(tx: Connection, versions: Iterable[tuple[str, int]]) -> None:
    """Nothing is left to tell the CRM of these rows up to these versions."""
    keys: dict[int, list[str]] = defaultdict(list)
    for key, version in versions:
        keys[version].append(key)
    for version, some in keys.items():
        tx.execute(_MARK_PUSHED, {"ids": some, "version": version})


def mark_all_to_push(tx: Connection) -> None:
    """Everything is looked at again, although no row changed."""
    tx.execute(contacts.update().where(contacts.c.pushed_version != 0).values(pushed_version=0))


def mark_to_push(tx: Connection, ids: Collection[str]) -> None:
    """Something is left to tell the CRM, although the rows did not change."""
    if ids:
        tx.execute(contacts.update().where(one_of(contacts.c.id, ids)).values(pushed_version=0))


def to_push(tx: Connection, connection: str, now: datetime, limit: int, after: str = "") -> list[str]:
    """Ids of contacts that changed since the CRM was last told, in order; failed ones when due again."""
    parameters = {"connection": connection, "now": now, "after": after, "limit": limit}
    return list(tx.execute(_TO_PUSH, parameters).scalars())


def count_to_push(tx: Connection, connection: str, now: datetime) -> int:
    """How many contacts the CRM should hear of now."""
    return tx.execute(_COUNT_TO_PUSH, {"connection": connection, "now": now}).scalar_one()


def portion_unlinked(tx: Connection, connection: str, after: str, size: int) -> list[StoredContact]:
    """Contacts that are linked to no record, by id: the first so many that come after one."""
    linked = sa.exists().where(links.c.contact_id == contacts.c.id, links.c.connection == connection)
    query = sa.select(*_COLUMNS.raw).where(~linked, contacts.c.id > after)
    return [_stored(row) for row in _COLUMNS.rows(tx, query.order_by(contacts.c.id).limit(size))]


def count(tx: Connection) -> int:
    """How many contacts there are."""
    return tx.execute(sa.select(sa.func.count()).select_from(contacts)).scalar_one()


def unlinked_ids(tx: Connection, connection: str) -> list[str]:
    """Ids of contacts that the CRM has still to hear of and that are linked to no record."""
    linked = sa.exists().where(links.c.contact_id == contacts.c.id, links.c.connection == connection)
    query = sa.select(contacts.c.id).where(sa.text("row_version <> pushed_version"), ~linked)
    return list(tx.execute(query).scalars())


def oddly_spelled(tx: Connection, after: str, limit: int) -> list[str]:
    """Ids of unlinked contacts in a spelling of another program's own, with no alias yet; in order."""
    return list(tx.execute(_ODDLY_SPELLED, {"after": after, "limit": limit}).scalars())


def _stored(row: Sequence[Any]) -> StoredContact:
    return StoredContact(row[0], dict(zip(_DATA, row, strict=False)), *row[-len(_BESIDE) :])
