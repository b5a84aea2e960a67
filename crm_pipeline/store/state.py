"""A connection's own state: polling flag, watermark, the pull under way, the runs so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store.tables import connections, sync_runs


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """What is remembered of a connection between runs."""

    polling: bool
    watermark: datetime | None
    pull: dict[str, Any] | None
    mapping: str | None
    last_read_at: datetime | None
    last_full_read_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunRow:
    """One step of one run."""

    step: str
    run_id: str
    started_at: datetime
    finished_at: datetime | None
    state: str
    counts: dict[str, int] | None
    api_calls: int
    error: str | None


def load(tx: Connection, name: str) -> ConnectionState | None:
    """The state, or None for a connection never used."""
    row = tx.execute(_LOAD, {"name": name}).one_or_none()
    return None if row is None else ConnectionState(*row)


_LOAD = sa.select(  # made once: it is asked for several times in each run
    connections.c.polling,
    connections.c.watermark,
    connections.c.pull,
    connections.c.mapping,
    connections.c.last_read_at,
    connections.c.last_full_read_at,
).where(connections.c.name == sa.bindparam("name"))


def ensure(tx: Connection, name: str, *, polling: bool) -> ConnectionState:
    """The state; made with ``polling`` as start value when there is none yet."""
    state = load(tx, name)
    if state is None:
        state = ConnectionState(polling, None, None, None, None, None)
        tx.execute(connections.insert().values(name=name, polling=polling))
    return state


def save(tx: Connection, name: str, **values: Any) -> None:
    """Change some of the state: a column's name each."""
    tx.execute(connections.update().where(connections.c.name == name).values(**values))


def start_run(tx: Connection, connection: str, step: str, run_id: str, at: datetime) -> int:
    """Note that a step begins; its row's id."""
    row = {"connection": connection, "step": step, "run_id": run_id, "started_at": at, "state": "running"}
    result = tx.execute(sync_runs.insert().values(**row).returning(sync_runs.c.id))
    return int(result.scalar_one())


def finish_run(tx: Connection, row_id: int, at: datetime, **values: Any) -> None:
    """Note how a step ended: ``state``, ``counts``, ``api_calls``, ``error``."""
    tx.execute(sync_runs.update().where(sync_runs.c.id == row_id).values(finished_at=at, **values))


def first_run_at(tx: Connection, connection: str) -> datetime | None:
    """When the oldest run that is remembered began."""
    query = sa.select(sa.func.min(sync_runs.c.started_at)).where(sync_runs.c.connection == connection)
    first: datetime | None = tx.execute(query).scalar_one()
    return first


def latest_run(tx: Connection, connection: str, step: str, state: str | None = None) -> RunRow | None:
    """The newest run of a step, or its newest in a state."""
    query = (
        sa.select(
            sync_runs.c.step,
            sync_runs.c.run_id,
            sync_runs.c.started_at,
            sync_runs.c.finished_at,
            sync_runs.c.state,
            sync_runs.c.counts,
            sync_runs.c.api_calls,
            sync_runs.c.error,
        )
        .where(sync_runs.c.connection == connection, sync_runs.c.step == step)
        .order_by(sync_runs.c.id.desc())
        .limit(1)
    )
    if state is not None:
        query = query.where(sync_runs.c.state == state)
    row = tx.execute(query).one_or_none()
    return None if row is None else RunRow(*row)
