"""Leases: one worker for each connection, freed when its holder dies."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from crm_pipeline.store.tables import leases

TERM = timedelta(seconds=60)
"""How long a lease lives without being renewed."""


def new_holder() -> str:
    """A name for this worker that says where it lives: ``host/process namespace/pid/token``."""
    return f"{socket.gethostname()}/{_namespace()}/{os.getpid()}/{uuid.uuid4().hex}"


def take(tx: Connection, name: str, holder: str, now: datetime) -> bool:
    """Take a lease that is free, has run out, or whose holder is a dead process of this host."""
    row = tx.execute(
        sa.select(leases.c.holder, leases.c.expires_at).where(leases.c.name == name)
    ).one_or_none()
    if row is None:
        try:
            with tx.begin_nested():
                tx.execute(leases.insert().values(name=name, holder=holder, expires_at=now + TERM))
        except IntegrityError:
            return False
        return True
    if row.expires_at > now and row.holder != holder and _may_live(row.holder):
        return False
    statement = leases.update().where(leases.c.name == name, leases.c.holder == row.holder)
    return tx.execute(statement.values(holder=holder, expires_at=now + TERM)).rowcount == 1


def is_held(tx: Connection, name: str, now: datetime) -> bool:
    """Whether a worker that may be alive has a lease."""
    query = sa.select(leases.c.holder).where(leases.c.name == name, leases.c.expires_at > now)
    holder = tx.execute(query).scalar_one_or_none()
    return holder is not None and _may_live(holder)


def renew(tx: Connection, name: str, holder: str, now: datetime) -> bool:
    """Keep a lease; False when another has taken it, and then nothing more may be written."""
    statement = leases.update().where(leases.c.name == name, leases.c.holder == holder)
    return tx.execute(statement.values(expires_at=now + TERM)).rowcount == 1


def release(tx: Connection, name: str, holder: str) -> None:
    """Give a lease back."""
    tx.execute(leases.delete().where(leases.c.name == name, leases.c.holder == holder))


def _may_live(holder: str) -> bool:
    """False only for a process of this very host and process namespace that is gone."""
    host, namespace, pid, _ = holder.rsplit("/", 3)
    if host != socket.gethostname() or namespace != _namespace():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "0"
