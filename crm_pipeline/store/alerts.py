"""Alerts: a row for each incident, open or over, and who still has to be told of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline import instants
from crm_pipeline.store import bulk, observations
from crm_pipeline.store.tables import alerts


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that is wrong, or was."""

    id: int
    key: str
    grave: bool
    text: str
    figures: Mapping[str, int | float]
    opened_at: datetime
    seen_at: datetime
    """When it was last found to be so."""
    closed_at: datetime | None
    told: Sequence[str]
    """Channels that have heard of its beginning."""
    waiting: Sequence[str]
    """Channels that are still to hear of how it stands."""
    attempts: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Since when somebody has looked for what is wrong, and when last."""

    since: datetime
    looked_at: datetime


_WATCH = "watch"
_COLUMNS = tuple(alerts.c[name] for name in Incident.__slots__)


def open_ones(tx: Connection, connection: str, *, lock: bool = False) -> list[Incident]:
    """What is wrong now, oldest first; with ``lock`` nobody else changes it until the transaction ends."""
    return _load(tx, connection, alerts.c.closed_at.is_(None), lock=lock)


def watch(tx: Connection, connection: str) -> Watch | None:
    """Who looks; None when nobody has ever looked."""
    found = observations.load(tx, connection, _WATCH)
    return Watch(*(instants.from_text(found[name]) for name in Watch.__slots__)) if found else None


def look(tx: Connection, connection: str, at: datetime) -> None:
    """Note that somebody looks now."""
    first = {"since": instants.to_text(at)}
    seen = first | observations.locked(tx, connection, _WATCH) | {"looked_at": instants.to_text(at)}
    observations.save(tx, connection, _WATCH, seen)


def begin(tx: Connection, connection: str, at: datetime, **facts: Any) -> None:
    """Note that something is wrong; where another process was first, its row stands."""
    told = {"told": [], "waiting": [], "attempts": 0}
    row = {"connection": connection, "opened_at": at, "seen_at": at, **told, **facts}
    tx.execute(bulk.upsert(tx, alerts).values(row).on_conflict_do_nothing())


def still(
    tx: Connection, incident: Incident, at: datetime, to_tell: Collection[str] = (), **facts: Any
) -> None:
    """Note that it is wrong still, how it stands, and which further channels are to hear of it."""
    if to_tell:
        waiting = sorted({*incident.waiting, *to_tell})
        facts |= {"waiting": waiting, "attempts": 0, "due_at": at}
    _change(tx, incident.id, seen_at=at, **facts)


def end(tx: Connection, incident: Incident, at: datetime) -> None:
    """Note that it is over: whoever heard of its beginning hears of that."""
    over = {"closed_at": at, "waiting": list(incident.told), "attempts": 0}
    due_at = at if incident.told else None
    where = (alerts.c.id == incident.id, alerts.c.closed_at.is_(None))
    tx.execute(alerts.update().where(*where).values(**over, due_at=due_at))


def claim(tx: Connection, connection: str, now: datetime, term: timedelta) -> list[Incident]:
    """Incidents that somebody has to be told of now; nobody else gets them for a while."""
    due = _load(tx, connection, alerts.c.due_at <= now)
    mine = []
    for incident in due:
        taken = alerts.update().where(alerts.c.id == incident.id, alerts.c.due_at <= now)
        if tx.execute(taken.values(due_at=now + term)).rowcount:
            mine.append(incident)
    return mine


def heard(tx: Connection, incident: Incident, channel: str, at: datetime) -> None:
    """Note that a channel took what was told; where it ended or got worse meanwhile, that is next."""
    current = _locked(tx, incident.id)
    told = sorted({*current.told, channel})
    if (current.closed_at, current.grave) == (incident.closed_at, incident.grave):
        waiting = [name for name in current.waiting if name != channel]
        due: dict[str, Any] = {} if waiting else {"due_at": None}
    else:
        waiting, due = sorted({*current.waiting, channel}), {"due_at": at}
    _change(tx, incident.id, told=told, waiting=waiting, **due)


def missed(tx: Connection, incident: Incident, again_at: datetime | None) -> None:
    """Note that a channel did not take it: whoever still waits is tried again at a time, or never."""
    if _locked(tx, incident.id).closed_at == incident.closed_at:
        _change(tx, incident.id, attempts=incident.attempts + 1, due_at=again_at)


def leave(tx: Connection, incident: Incident, channel: str) -> None:
    """Note that a channel is told no more of it."""
    waiting = [name for name in _locked(tx, incident.id).waiting if name != channel]
    _change(tx, incident.id, waiting=waiting, **({} if waiting else {"due_at": None}))


def count_open(tx: Connection, connection: str) -> dict[bool, int]:
    """How many incidents are open: the grave ones, and the others."""
    query = (
        sa.select(alerts.c.grave, sa.func.count().label("number"))
        .where(alerts.c.connection == connection, alerts.c.closed_at.is_(None))
        .group_by(alerts.c.grave)
    )
    return {row.grave: row.number for row in tx.execute(query)}


def _locked(tx: Connection, incident: int) -> Incident:
    """As it stands now; nobody else changes it until the transaction ends."""
    query = sa.select(*_COLUMNS).where(alerts.c.id == incident).with_for_update()
    return Incident(*tx.execute(query).one())


def _change(tx: Connection, incident: int, **values: Any) -> None:
    tx.execute(alerts.update().where(alerts.c.id == incident).values(**values))


def _load(
    tx: Connection, connection: str, condition: sa.ColumnElement[bool], *, lock: bool = False
) -> list[Incident]:
    query = sa.select(*_COLUMNS).where(alerts.c.connection == connection, condition).order_by(alerts.c.id)
    if lock:
        query = query.with_for_update()
    return [Incident(*row) for row in tx.execute(query)]
