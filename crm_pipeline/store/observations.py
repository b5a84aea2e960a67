"""Observations: what looking at the data again and again remembers from one look to the next."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from crm_pipeline.store.tables import observations


def load(tx: Connection, connection: str, name: str) -> dict[str, Any]:
    """What is remembered; empty before the first look."""
    return tx.execute(_of(connection, name)).scalar_one_or_none() or {}


def locked(tx: Connection, connection: str, name: str) -> dict[str, Any]:
    """As ``load``; nobody else changes it until the transaction ends."""
    query = _of(connection, name).with_for_update()
    state = tx.execute(query).scalar_one_or_none()
    if state is None:
        try:
            with tx.begin_nested():
                tx.execute(observations.insert().values(connection=connection, name=name, state={}))
        except IntegrityError:  # another process was first
            pass
        state = tx.execute(query).scalar_one()
    found: dict[str, Any] = state
    return found


def save(tx: Connection, connection: str, name: str, state: dict[str, Any]) -> None:
    """Remember this instead."""
    where = (observations.c.connection == connection, observations.c.name == name)
    tx.execute(observations.update().where(*where).values(state=state))


def forget(tx: Connection, connection: str, name: str) -> None:
    """Begin anew."""
    where = (observations.c.connection == connection, observations.c.name == name)
    tx.execute(observations.delete().where(*where))


def _of(connection: str, name: str) -> sa.Select[tuple[Any]]:
    return sa.select(observations.c.state).where(
        observations.c.connection == connection, observations.c.name == name
    )
