"""Moving: all rows from one database to another, SQLite or PostgreSQL, read back before it counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import sqlalchemy as sa
from psycopg import Error as PostgresError
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from crm_pipeline import instants
from crm_pipeline.store import leases
from crm_pipeline.store.engine import writing
from crm_pipeline.store.fitting import canonical_json, fits
from crm_pipeline.store.migrate import applied, newest
from crm_pipeline.store.tables import leases as held
from crm_pipeline.store.tables import metadata
from crm_pipeline.store.types import Instant, Json, OpenJson

Row: TypeAlias = Sequence[Any]
Progress: TypeAlias = Callable[[int, int | None], None]

TABLES = tuple(table for table in metadata.sorted_tables if table is not held)
"""All but the leases: processes hold those, and none may work while a database is moved."""
_AT_ONCE = 1000


class CopyError(Exception):
    """Nothing was moved. The text says why, and holds no value of a row and no URL."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One table, as both databases hold it."""

    table: str
    rows: int
    checksum: str
    """The same for the same rows, in whatever order and kind of database they are."""


def move(source: Engine, target: Engine, progress: Progress) -> list[Moved]:
    """Write what the source holds at one moment into an empty target, in one transaction, and read it back.

    Rows stream: memory does not grow with the tables.

    Args:
        source: where the rows are; nothing is written there.
        target: has our tables, and no row in them.
        progress: told of rows done, and of how many there are.

    Raises:
        CopyError: one of the two has not the shape of this version, the target is not empty, somebody
            works on the source, or the target cannot hold a row. The target is as it was.
    """
    with _one_moment(source) as old, writing(target) as new:
        _require_shape(old, "source")
        _require_shape(new, "target")
        _require_rest(old)
        _require_empty(new)
        total = sum(_count(old, table) for table in TABLES)
        unfit: Counter[str] = Counter()
        moved: list[Moved] = []
        for table in TABLES:
            before = sum(each.rows for each in moved)
            moved.append(_move(table, old, new, unfit, partial(_tell, progress, total, before)))
        if unfit:
            told = (f"  {problem}: {rows}" for problem, rows in sorted(unfit.items()))
            raise CopyError(
                "\n".join(["The target cannot hold these; mend them in the source first:", *told])
            )
        for each, table in zip(moved, TABLES, strict=True):
            if _read_back(new, table) != each:
                raise CopyError(f"{table.name}: the target does not read back what was written")
        if new.dialect.name == "postgresql":
            _number_on(new)
    return moved


def _tell(progress: Progress, total: int, before: int, rows: int) -> None:
    progress(before + rows, total)


@contextmanager
def _one_moment(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees the database as it was when it began, and lets odd bytes through as text."""
    if engine.dialect.name == "postgresql":
        once = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with once.begin() as tx:
            yield tx
        return
    with engine.begin() as tx:
        driver: Any = tx.connection.driver_connection
        usual, driver.text_factory = driver.text_factory, lambda raw: raw.decode(errors="surrogateescape")
        try:
            yield tx
        finally:
            driver.text_factory = usual


def _require_shape(tx: Connection, which: str) -> None:
    revision = applied(tx)
    if revision != newest():
        raise CopyError(
            f"The {which} is at {revision or 'nothing yet'}, this version needs {newest()}: "
            "run crm-pipeline db upgrade on it"
        )


def _require_rest(old: Connection) -> None:
    names = old.execute(sa.select(held.c.name)).scalars().all()
    if any(leases.is_held(old, name, instants.now()) for name in names):
        raise CopyError("Somebody works on the source: stop everything that uses it, and wait a minute")


def _require_empty(new: Connection) -> None:
    full = [table.name for table in TABLES if _count(new, table)]
    if full:
        raise CopyError(f"The target is not empty: it has rows in {', '.join(full)}")


def _count(tx: Connection, table: sa.Table) -> int:
    return tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _move(
    table: sa.Table, old: Connection, new: Connection, unfit: Counter[str], step: Callable[[int], None]
) -> Moved:
    """Write a table's rows; those that the target cannot hold are counted in ``unfit`` instead."""
    checks = [(f"{table.name}.{column.name}", fits(column, new.dialect.name)) for column in table.columns]
    seen = _Seen(table)

    def fitting() -> Iterator[Row]:
        for row in _rows(old, table):
            problems = [
                f"{name} {problem}"
                for (name, check), value in zip(checks, row, strict=True)
                if value is not None and (problem := check(value))
            ]
            unfit.update(problems)
            if not problems:
                seen.add(row)
                yield row
            if seen.rows % _AT_ONCE == 0:
                step(seen.rows)

    write = _copy_in if new.dialect.name == "postgresql" else _insert
    try:
        write(new, table, fitting())
    except (SQLAlchemyError, PostgresError) as error:
        kind = type(getattr(error, "orig", None) or error).__name__
        raise CopyError(f"{table.name}: the target refuses a row ({kind})") from None
    step(seen.rows)
    return seen.moved


def _read_back(new: Connection, table: sa.Table) -> Moved:
    seen = _Seen(table)
    for row in _rows(new, table):
        seen.add(row)
    return seen.moved


class _Seen:
    """Rows of a table, counted and summed up."""

    def __init__(self, table: sa.Table) -> None:
        self._name = table.name
        self._open = [at for at, column in enumerate(table.columns) if isinstance(column.type, OpenJson)]
        self.rows = self._sum = 0

    def add(self, row: Row) -> None:
        values = [instants.to_text(value) if isinstance(value, datetime) else value for value in row]
        for at in self._open:
            values[at] = canonical_json(values[at])
        digest = hashlib.blake2b(repr(values).encode(errors="backslashreplace"), digest_size=16)
        self._sum += int.from_bytes(digest.digest())
        self.rows += 1

    @property
    def moved(self) -> Moved:
        return Moved(self._name, self.rows, f"{self._sum % 2**128:032x}")


def _rows(tx: Connection, table: sa.Table) -> Iterator[Row]:
    """Every row; JSON as text, so that no number in it is rounded."""
    as_text = sa.cast if tx.dialect.name == "postgresql" else sa.type_coerce
    wanted = [
        as_text(column, sa.Text) if isinstance(column.type, Json | OpenJson) else column
        for column in table.columns
    ]
    yield from tx.execute(sa.select(*wanted), execution_options={"yield_per": _AT_ONCE})


def _insert(new: Connection, table: sa.Table, rows: Iterable[Row]) -> None:
    typed = (sa.column(each.name, each.type if isinstance(each.type, Instant) else None) for each in table.c)
    raw, names, rows = sa.table(table.name, *typed), table.columns.keys(), iter(rows)
    while part := list(islice(rows, _AT_ONCE)):
        new.execute(raw.insert(), [dict(zip(names, row, strict=True)) for row in part])


def _copy_in(new: Connection, table: sa.Table, rows: Iterable[Row]) -> None:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    driver: Any = new.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN') as out:
        for row in rows:
            out.write_row(row)


def _number_on(new: Connection) -> None:
    """New rows go on where the copied ones end: PostgreSQL numbers by a counter of its own."""
    for table in TABLES:
        if table.autoincrement_column is not None:
            last = sa.func.max(table.autoincrement_column)
            counter = sa.func.pg_get_serial_sequence(table.name, table.autoincrement_column.name)
            new.execute(sa.select(sa.func.setval(counter, sa.func.coalesce(last, 1), last.is_not(None))))
