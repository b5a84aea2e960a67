"""Access tokens at rest: one sealed text for each connection."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store.tables import tokens


def load(tx: Connection, name: str) -> str | None:
    """The sealed token; None where there is none."""
    return tx.execute(sa.select(tokens.c.sealed).where(tokens.c.connection == name)).scalar_one_or_none()


def save(tx: Connection, name: str, sealed: str) -> None:
    """Keep a sealed token in place of the one before."""
    tx.execute(tokens.delete().where(tokens.c.connection == name))
    tx.execute(tokens.insert().values(connection=name, sealed=sealed))
