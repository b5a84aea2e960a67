"""Leases: one worker for each connection, freed when its holder dies."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from crm_pipeline.store.tables import leases

TERM = timedelta(seconds=60)
"""How long a lease lives without being renewed."""


def new_holder(token: str | None = None) -> str:
    """A name for this worker that says where it lives: ``host/process namespace/pid/token``."""
    return f"{socket.gethostname()}/{_namespace()}/{os.getpid()}/{token or uuid.uuid4().hex}"


def token_of(tx: Connection, name: str) -> str | None:
    """The token of whoever holds a lease, or held it last."""
    holder = tx.execute(sa.select(leases.c.holder).where(leases.c.name == name)).scalar_one_or_none()
    return holder.rsplit("/", 1)[1] if holder is not None else None


_given_up: set[str] = set()
"""Holders of this process that hold nothing any more, which the database could not be told."""


def give_up(holder: str) -> None:
    """Let others of this process take over at once, where a lease cannot be given back."""
    _given_up.add(holder)


def take(tx: Connection, name: str, holder: str, now: datetime) -> bool:
    """Take a lease that is free, has run out, or whose holder is a dead process of this host."""
    row = tx.execute(_HELD_BY, {"of": name}).one_or_none()
    if row is None:
        try:
            with tx.begin_nested():
                tx.execute(leases.insert().values(name=name, holder=holder, expires_at=now + TERM))
        except IntegrityError:
            return False
        return True
    if row.expires_at > now and row.holder != holder and _may_live(row.holder):
        return False
    taken = {"of": name, "by": row.holder, "next": holder, "until": now + TERM}
    return tx.execute(_TAKE_OVER, taken).rowcount == 1


def is_held(tx: Connection, name: str, now: datetime) -> bool:
    """Whether a worker that may be alive has a lease."""
    query = sa.select(leases.c.holder).where(leases.c.name == name, leases.c.expires_at > now)
    holder = tx.execute(query).scalar_one_or_none()
    return holder is not None and _may_live(holder)


def names(tx: Connection, prefix: str) -> set[str]:
    """Leases of a kind, those that have run out included."""
    return set(tx.execute(sa.select(leases.c.name).where(_of(prefix))).scalars())


def run_out(tx: Connection, prefix: str, now: datetime) -> dict[str, bool]:
    """Leases of a kind that nobody keeps, and whether their holders are gone for sure.

    A process of this host that lives has only been slow, or has ended what it held the lease for.
    """
    query = sa.select(leases.c.name, leases.c.holder, leases.c.expires_at).where(_of(prefix))
    found = {}
    for name, holder, end in tx.execute(query):
        lives = _is_here(holder) and _may_live(holder)
        if end <= now or not _may_live(holder):
            found[name] = not lives
    return found


def _of(prefix: str) -> sa.ColumnElement[bool]:
    return leases.c.name.startswith(prefix, autoescape=True)


def renew(tx: Connection, name: str, holder: str, now: datetime, term: timedelta = TERM) -> bool:
    """Keep a lease; False when another has taken it, and then nothing more may be written."""
    return tx.execute(_RENEW, {"of": name, "by": holder, "until": now + term}).rowcount == 1


# Made once: every transaction of a worker begins with one, and each run with the others.
_THIS = leases.c.name == sa.bindparam("of")
_OURS = (_THIS, leases.c.holder == sa.bindparam("by"))
_RENEW = (
    leases.update().where(*_OURS).values(expires_at=sa.bindparam("until", type_=leases.c.expires_at.type))
)
_HELD_BY = sa.select(leases.c.holder, leases.c.expires_at).where(_THIS)
_TAKE_OVER = _RENEW.values(holder=sa.bindparam("next"))
_RELEASE = leases.delete().where(*_OURS)


def release(tx: Connection, name: str, holder: str) -> None:
    """Give a lease back."""
    tx.execute(_RELEASE, {"of": name, "by": holder})


def forget(tx: Connection, names: Collection[str]) -> None:
    """Drop leases whose holders are gone."""
    tx.execute(leases.delete().where(leases.c.name.in_(names)))


def _may_live(holder: str) -> bool:
    """False only for a process of this very host and process namespace that is gone, or gave up."""
    if holder in _given_up:
        return False
    if not _is_here(holder):
        return True
    try:
        os.kill(int(holder.rsplit("/", 2)[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_here(holder: str) -> bool:
    """Whether it is a process that can be looked for."""
    host, namespace, _, _ = holder.rsplit("/", 3)
    return host == socket.gethostname() and namespace == _namespace()


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "0"
