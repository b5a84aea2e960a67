"""Engines: a URL becomes a database that is durable and says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import DisconnectionError

from crm_pipeline.store.taking_turns import take_turn

_BUSY_TIMEOUT_MS = 30_000
_PRIMARY = 0xFF
"""The part of an error's code that tells its kind."""
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""For PostgreSQL, in seconds and milliseconds: a server that went without a word is given up after half
a minute, where the system would wait for hours. A URL may say otherwise."""


def open_database(url: str) -> Engine:
    """Open ``sqlite:///…`` or ``postgresql+psycopg://…`` (plain ``postgresql://`` means that).

    SQLite runs with a write-ahead log, full synchronous commits, foreign keys and a busy
    timeout; its folder is made when missing, but not the folders above.

    Raises:
        ValueError: neither of the two.
        OSError: SQLite's folder cannot be made.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if parsed.get_backend_name() == "postgresql":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        patience = {name: value for name, value in _PATIENCE.items() if name not in parsed.query}
        connect_args = {"options": "-c timezone=UTC", **patience}
        engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args=connect_args)
        sa.event.listen(engine, "connect", _configure_postgresql)
        return engine
    msg = "the database must be SQLite or PostgreSQL"
    raise ValueError(msg)


def _sqlite(url: sa.URL) -> Engine:
    # Python's driver looks whether None has a way to be adapted, each time that it binds one: with a row of
    # many empty columns that takes longer than to insert it. Told that None stays None, it does not look.
    sqlite3.register_adapter(NoneType, _nothing)
    engine = sa.create_engine(url)
    sa.event.listen(engine, "connect", _configure_sqlite)
    if not url.database or url.database == ":memory:":
        sa.event.listen(engine, "begin", _begin_alone)
        return engine
    path = Path(url.database)
    path.parent.mkdir(exist_ok=True)
    _watch(engine, path)
    sa.event.listen(engine, "begin", partial(_begin_in_turn, path))
    return engine


_nothing: Callable[[None], None] = {}.get  # type: ignore[assignment] # a call that costs next to nothing


def _watch(engine: Engine, path: Path) -> None:
    """Notice that the file was removed or replaced: what is committed to an open, removed file is lost."""
    opened = False

    def open_again(*_arguments: Any) -> None:
        if opened and not path.exists():  # SQLite would make an empty one
            msg = "the database's file is gone"
            raise sqlite3.OperationalError(msg)

    def remember(_connection: Any, record: Any) -> None:
        nonlocal opened
        opened, record.info[_watch] = True, path.stat().st_ino

    def compare(_connection: Any, record: Any, _proxy: Any) -> None:
        try:
            same = path.stat().st_ino == record.info[_watch]
        except FileNotFoundError:
            same = False
        if not same:
            raise DisconnectionError

    sa.event.listen(engine, "do_connect", open_again)
    sa.event.listen(engine, "connect", remember)
    sa.event.listen(engine, "checkout", compare)


def _configure_postgresql(connection: Any, _record: Any) -> None:
    """A time that Python has not, such as ``infinity``, is read as the text it is: it stops one row only.

    As PostgreSQL usually writes them, times are read by Python's own parser, five times as fast.
    """
    from psycopg import DataError  # noqa: PLC0415 - PostgreSQL only
    from psycopg.adapt import Loader  # noqa: PLC0415
    from psycopg.pq import Format  # noqa: PLC0415

    usual: Any = connection.adapters.get_loader(connection.adapters.types["timestamptz"].oid, Format.TEXT)

    class Lenient(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._usual = usual(oid, context)

        def load(self, data: Any) -> Any:
            text = bytes(data).decode()
            try:
                return datetime.fromisoformat(text)
            except ValueError:
                pass
            try:
                return self._usual.load(data)
            except DataError:
                return text

    connection.adapters.register_loader("timestamptz", Lenient)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transaction control starts writes too late; ``_begin_sqlite`` does it.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_alone(connection: Connection) -> None:
    # A read that turns into a write can fail at once with SQLITE_BUSY_SNAPSHOT, whatever the
    # busy timeout: whoever may write takes the write lock first.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _may_write(connection) else "BEGIN")


def _begin_in_turn(path: Path, connection: Connection) -> None:
    if not _may_write(connection):
        _begin_alone(connection)
        return
    driver: Any = connection.connection.dbapi_connection
    driver.execute("PRAGMA busy_timeout=0")
    try:
        take_turn(path, partial(_need_not_try_again, driver), _BUSY_TIMEOUT_MS / 1000)
        if not driver.in_transaction:
            _begin_alone(connection)  # fails, in SQLAlchemy's words
    finally:
        driver.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")


def _need_not_try_again(driver: Any) -> bool:
    """Try to begin to write; False where another is writing."""
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & _PRIMARY != sqlite3.SQLITE_BUSY
    return True


def _may_write(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("crm_write", False))


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write; committed at the end, rolled back on an exception."""
    with engine.connect() as connection, connection.execution_options(crm_write=True).begin():
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A consistent view that writes nothing."""
    with engine.begin() as connection:
        yield connection
