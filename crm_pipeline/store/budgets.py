"""Budgets: what an account's processes have asked its CRM, counted in one row that all of them lock."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from crm_pipeline.store.tables import budgets


def locked(tx: Connection, name: str) -> dict[str, Any]:
    """A budget's state, held until the transaction ends; empty for a new one."""
    query = sa.select(budgets.c.state).where(budgets.c.name == name).with_for_update()
    state = tx.execute(query).scalar_one_or_none()
    if state is None:
        try:
            with tx.begin_nested():
                tx.execute(budgets.insert().values(name=name, state={}))
        except IntegrityError:  # another process was first
            pass
        state = tx.execute(query).scalar_one()
    found: dict[str, Any] = state
    return found


def save(tx: Connection, name: str, state: dict[str, Any]) -> None:
    """Keep a budget's state."""
    tx.execute(budgets.update().where(budgets.c.name == name).values(state=state))


def load(tx: Connection, name: str) -> dict[str, Any]:
    """A budget's state as it is; empty for one never used."""
    state = tx.execute(sa.select(budgets.c.state).where(budgets.c.name == name)).scalar_one_or_none()
    return state or {}
