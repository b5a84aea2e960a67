"""Totals: figures of all steps there ever were. They outlive the rows of the runs, and only grow."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store import bulk
from crm_pipeline.store.tables import step_totals


def add(tx: Connection, connection: str, step: str, amounts: Mapping[str, float]) -> None:
    """Add to the figures of a step."""
    rows = [
        {"connection": connection, "step": step, "name": name, "amount": amount}
        for name, amount in sorted(amounts.items())
        if amount
    ]
    if not rows:
        return
    insert = bulk.upsert(tx, step_totals)
    key = [step_totals.c.connection, step_totals.c.step, step_totals.c.name]
    grown = {"amount": step_totals.c.amount + insert.excluded.amount}
    tx.execute(insert.on_conflict_do_update(index_elements=key, set_=grown), rows)


def load(tx: Connection, connection: str) -> dict[str, dict[str, float]]:
    """Figures by step and name."""
    query = (
        sa.select(step_totals.c.step, step_totals.c.name, step_totals.c.amount)
        .where(step_totals.c.connection == connection)
        .order_by(step_totals.c.step, step_totals.c.name)
    )
    found: dict[str, dict[str, float]] = {}
    for row in tx.execute(query):
        found.setdefault(row.step, {})[row.name] = row.amount
    return found
