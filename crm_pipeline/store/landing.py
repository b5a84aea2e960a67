"""The landing table of pulled records: every version as it came, the newest marked current."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline import jsonio
from crm_pipeline.store import bulk, forgotten
from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.tables import CURRENT, contacts, links
from crm_pipeline.store.tables import external_records as records

BATCH = 1000
"""Records to a transaction."""


class Arrival(NamedTuple):  # a frozen dataclass takes three times as long to make
    """A record that came in, ready to be stored."""

    external_id: str
    modified_at: datetime | None
    content_hash: str
    payload: str
    deleted: bool
    read_at: datetime
    whose: Callable[[Any], str | None] | None = None
    """Tells the WhatsApp id that a record names. Asked only where somebody was forgotten."""

    @property
    def names(self) -> set[str]:
        """Whatever it names somebody by."""
        identity = self.whose(jsonio.loads(self.payload)) if self.whose is not None else None
        return {self.external_id} if identity is None else {self.external_id, identity}


class Landed(NamedTuple):  # as Arrival
    """A stored record that waits to be applied."""

    id: int
    external_id: str
    modified_at: datetime | None
    payload: str
    deleted: bool
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How a record stands, as it was last read."""

    id: int
    content_hash: str
    deleted: bool
    outcome: str | None
    """None while it waits to be applied."""


@dataclass(frozen=True, slots=True)
class LandingCounts:
    """What became of arrivals."""

    created: int
    updated: int
    unchanged: int
    known: tuple[int, ...]
    """Rows of the records that were known, as they stood before."""


# Made once, as those of contacts.
_THESE = (
    records.c.connection == sa.bindparam("of"),
    CURRENT,
    one_of(records.c.external_id, "ids"),
)
_THE_SAME = sa.and_(*(records.c[name] == links.c[name] for name in ("connection", "external_id")))
_ALIVE = ~records.c.deleted
_WAIT = (records.c.connection == sa.bindparam("of"), records.c.outcome.is_(None))
_WAITING = (
    sa.select(
        records.c.id,
        records.c.external_id,
        records.c.modified_at,
        records.c.payload,
        records.c.deleted,
        records.c.read_at,
    )
    .where(*_WAIT)
    .order_by(records.c.id)
    .limit(sa.bindparam("limit"))
)
_WAITING_ALIVE = _WAITING.where(_ALIVE)
_COUNT_WAITING = sa.select(sa.func.count()).select_from(records).where(*_WAIT)
_COUNT_WAITING_ALIVE = _COUNT_WAITING.where(_ALIVE)
_COUNT_WAITING_DELETES = (
    sa.select(sa.func.count())
    .select_from(records.join(links, _THE_SAME))
    .where(*_WAIT, records.c.deleted, links.c.external_deleted_at.is_(None))
)
_MADE_ANEW = (
    sa.select(links.c.external_id)
    .join(contacts, contacts.c.id == links.c.contact_id)
    .where(links.c.connection == sa.bindparam("of"), links.c.contact_deleted_at.is_not(None))
)
_PAYLOADS = sa.select(records.c.external_id, records.c.payload).where(*_THESE)
_CURRENT_OF = sa.select(records.c.external_id, records.c.id, records.c.content_hash).where(*_THESE)
_DISTRUST = records.update().where(*_THESE, records.c.content_hash != "").values(content_hash="")
_SETTLE_CURRENT = (
    records.update()
    .where(*_THESE, records.c.outcome.is_(None))
    .values(outcome=sa.bindparam("ended"), applied_at=sa.bindparam("at", type_=records.c.applied_at.type))
)


@dataclass(frozen=True, slots=True)
class Sorted:
    """Arrivals, sorted into what has to be stored and what is known."""

    arrivals: list[Arrival]
    """Those with new content; records never seen before come first."""
    replaced: list[int]
    """Rows that stop being current."""
    counts: LandingCounts


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of news before it was stored."""

    rows: Sequence[Landed]
    """In the order of the news."""
    outcomes: Mapping[int, str]
    """Where they ended, by row; those that are missing wait."""
    at: datetime

    def end(self, row_id: int) -> dict[str, Any]:
        """The columns that tell of it."""
        outcome = self.outcomes.get(row_id)
        return {"id": row_id, "outcome": outcome, "applied_at": None if outcome is None else self.at}


def land(tx: Connection, connection: str, arrivals: Iterable[Arrival], run_id: str) -> LandingCounts:
    """Store what is new; content that is already the current one costs nothing."""
    news = sort_out(tx, connection, arrivals)
    store(tx, connection, run_id, news)
    return news.counts


def sort_out(tx: Connection, connection: str, arrivals: Iterable[Arrival]) -> Sorted:
    """Find what is new.

    What was read last counts, whatever its modified time: a CRM's clock may be set back.
    Of people who were forgotten nothing is stored or counted.
    """
    newest: dict[str, Arrival] = {}
    total = 0
    for arrival in of_known(tx, connection, list(arrivals)):
        total += 1
        newest[arrival.external_id] = arrival
    known = _current(tx, connection, list(newest))
    fresh: list[Arrival] = []
    changed: list[Arrival] = []
    replaced: list[int] = []
    for key, arrival in newest.items():
        if key not in known:
            fresh.append(arrival)
        elif arrival.content_hash != known[key][1]:
            changed.append(arrival)
            replaced.append(known[key][0])
    unchanged = total - len(fresh) - len(changed)
    rows = tuple(row_id for row_id, _ in known.values())
    return Sorted([*fresh, *changed], replaced, LandingCounts(len(fresh), len(changed), unchanged, rows))


def numbered(tx: Connection, news: Sorted) -> list[Landed]:
    """What is new, as it will be once it is stored."""
    ids = bulk.next_ids(tx, records.c.id, len(news.arrivals))
    return [
        Landed(row_id, each.external_id, each.modified_at, each.payload, each.deleted, each.read_at)
        for row_id, each in zip(ids, news.arrivals, strict=True)
    ]


def store(tx: Connection, connection: str, run_id: str, news: Sorted, applied: Applied | None = None) -> None:
    """Store what is new: as what became of it already, or else to be applied."""
    if news.replaced:
        _replace(tx, news.replaced)
    rows = [_row(arrival, connection, run_id) for arrival in news.arrivals]
    if applied is not None:
        rows = [row | applied.end(landed.id) for row, landed in zip(rows, applied.rows, strict=True)]
    bulk.insert(tx, records, rows)


def waiting(tx: Connection, connection: str, limit: int, *, deletes: bool = True) -> list[Landed]:
    """The oldest records that have not been applied; without tombstones unless ``deletes``."""
    query = _WAITING if deletes else _WAITING_ALIVE
    return [Landed._make(row) for row in tx.execute(query, {"of": connection, "limit": limit}).all()]


def any_waits(tx: Connection, connection: str) -> bool:
    """Whether a record that is no tombstone has not been applied."""
    return tx.execute(_WAITING_ALIVE, {"of": connection, "limit": 1}).first() is not None


def count_waiting(tx: Connection, connection: str, *, deletes: bool = True) -> int:
    """How many records have not been applied; without tombstones unless ``deletes``."""
    query = _COUNT_WAITING if deletes else _COUNT_WAITING_ALIVE
    return tx.execute(query, {"of": connection}).scalar_one()


def count_waiting_deletes(tx: Connection, connection: str) -> int:
    """How many of them would archive a contact: tombstones of records that are linked and not gone yet."""
    return tx.execute(_COUNT_WAITING_DELETES, {"of": connection}).scalar_one()


def settle(tx: Connection, row_ids: Sequence[int], outcome: str, at: datetime) -> None:
    """Say where records ended."""
    where = one_of(records.c.id, row_ids)
    tx.execute(records.update().where(where).values(outcome=outcome, applied_at=at))


def settle_current(
    tx: Connection, connection: str, external_ids: Sequence[str], outcome: str, at: datetime
) -> None:
    """Say where the current versions of these records ended, without applying them."""
    if external_ids:
        tx.execute(_SETTLE_CURRENT, {"of": connection, "ids": external_ids, "ended": outcome, "at": at})


def payloads(tx: Connection, connection: str, external_ids: Sequence[str]) -> dict[str, str]:
    """The records as last read, as JSON text, by external id."""
    if not external_ids:
        return {}
    rows = tx.execute(_PAYLOADS, {"of": connection, "ids": external_ids}).all()
    return {row[0]: row[1] for row in rows}


def wait_again(
    tx: Connection,
    connection: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    ids: Sequence[int] | None = None,
) -> int:
    """Let current records be applied once more; how many there are."""
    conditions: list[Any] = [records.c.connection == connection, CURRENT]
    if since is not None:
        conditions.append(records.c.modified_at >= since)
    if until is not None:
        conditions.append(records.c.modified_at < until)
    if ids is not None:
        conditions.append(one_of(records.c.id, ids))
    return tx.execute(records.update().where(*conditions).values(outcome=None, applied_at=None)).rowcount


def distrust(tx: Connection, connection: str, external_ids: Sequence[str]) -> None:
    """Let the next reading of these records count as new, even with the same content."""
    if external_ids:
        tx.execute(_DISTRUST, {"of": connection, "ids": external_ids})


def last_row(tx: Connection) -> int:
    """The highest row there is; 0 where there is none."""
    return tx.execute(sa.select(sa.func.max(records.c.id))).scalar_one() or 0


def current_rows(tx: Connection, connection: str, external_ids: Sequence[str]) -> dict[str, int]:
    """The current rows of these records, by external id; those that never landed are left out."""
    query = sa.select(records.c.external_id, records.c.id).where(
        records.c.connection == connection, CURRENT, one_of(records.c.external_id, external_ids)
    )
    return {row[0]: row[1] for row in tx.execute(query).all()}


def linked_rows(tx: Connection, connection: str, up_to: int) -> Iterator[tuple[str, int | None]]:
    """Linked records that exist, with their current rows; None: it never landed.

    Without those whose current row is beyond ``up_to``: of a first load, all.
    """
    query = (
        sa.select(links.c.external_id, records.c.id)
        .select_from(links.outerjoin(records, sa.and_(_THE_SAME, CURRENT)))
        .where(
            links.c.connection == connection,
            links.c.external_deleted_at.is_(None),
            records.c.id.is_(None) | (records.c.id <= up_to),
        )
    )
    for part in tx.execute(query, execution_options={"yield_per": 1000}).partitions():
        yield from map(tuple, part)


def made_anew(tx: Connection, connection: str) -> list[str]:
    """Records whose contacts were deleted and made again, and have to meet anew."""
    return list(tx.execute(_MADE_ANEW, {"of": connection}).scalars())


def wake(tx: Connection, connection: str, external_ids: Sequence[str]) -> None:
    """Let these records, as last read, be applied once more."""
    where = (records.c.connection == connection, CURRENT, one_of(records.c.external_id, external_ids))
    tx.execute(records.update().where(*where).values(outcome=None, applied_at=None))


def standings(tx: Connection, connection: str, external_ids: Sequence[str]) -> dict[str, Standing]:
    """How these records stand, by external id; those never read are left out."""
    query = sa.select(
        records.c.external_id, records.c.id, records.c.content_hash, records.c.deleted, records.c.outcome
    ).where(records.c.connection == connection, CURRENT, one_of(records.c.external_id, external_ids))
    return {key: Standing(*rest) for key, *rest in tx.execute(query)}


def of_known(tx: Connection, connection: str, arrivals: Sequence[Arrival]) -> Iterable[Arrival]:
    """Without those of people who were forgotten."""
    if not forgotten.any_of(tx, connection):
        return arrivals
    names = [each.names for each in arrivals]
    gone = forgotten.among(tx, connection, set().union(*names))
    return [each for each, its in zip(arrivals, names, strict=True) if not its & gone]


def _current(tx: Connection, connection: str, external_ids: list[str]) -> dict[str, tuple[int, str]]:
    """Row and content hash of those that have landed, by external id."""
    rows = tx.execute(_CURRENT_OF, {"of": connection, "ids": external_ids}).all()  # one by one costs twice
    return {external_id: (row_id, content_hash) for external_id, row_id, content_hash in rows}


def _replace(tx: Connection, row_ids: list[int]) -> None:
    """Older versions stop being current; one that never was applied never will be."""
    outcome = sa.func.coalesce(records.c.outcome, "skipped")
    tx.execute(records.update().where(one_of(records.c.id, row_ids)).values(current=False, outcome=outcome))


def _row(arrival: Arrival, connection: str, run_id: str) -> dict[str, Any]:
    return {
        "connection": connection,
        "external_id": arrival.external_id,
        "modified_at": arrival.modified_at,
        "content_hash": arrival.content_hash,
        "payload": arrival.payload,
        "deleted": arrival.deleted,
        "read_at": arrival.read_at,
        "run_id": run_id,
        "current": True,
    }


def newest(tx: Connection, connection: str, after: int, limit: int) -> list[tuple[int, str]]:
    """Row ids and payloads of records that landed after a row: the newest so many, the newest last."""
    query = (
        sa.select(records.c.id, records.c.payload)
        .where(records.c.connection == connection, records.c.id > after, ~records.c.deleted)
        .order_by(records.c.id.desc())
        .limit(limit)
    )
    return [(row.id, row.payload) for row in tx.execute(query)][::-1]


def each_payload(tx: Connection, connection: str) -> Iterator[tuple[str, str]]:
    """External id and payload of every record that landed, in all versions."""
    query = sa.select(records.c.external_id, records.c.payload).where(records.c.connection == connection)
    for row in tx.execute(query, execution_options={"yield_per": 1000}):
        yield row.external_id, row.payload


def payload(tx: Connection, row_id: int) -> str | None:
    """What came in, as JSON text."""
    return tx.execute(sa.select(records.c.payload).where(records.c.id == row_id)).scalar_one_or_none()
