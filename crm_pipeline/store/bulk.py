"""Bulk: a list as one parameter, many rows in one go, and upserts, as each database does them best."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from operator import itemgetter
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from crm_pipeline import instants, jsonio
from crm_pipeline.store.types import Instant, Json

T = TypeVar("T")


class _List(sa.TypeDecorator[Any]):
    """A list as one text: an array's on PostgreSQL, JSON on SQLite."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """None on PostgreSQL: an array cast from a text is no constant, and held against every row."""
        return dialect.type_descriptor(sa.types.NullType() if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """Take any collection of texts or numbers."""
        text = jsonio.dumps(list(value))
        if dialect.name != "postgresql":
            return text
        if "\\" in text:  # the two escape alike only what needs it least
            return f"{{{','.join(map(_quoted, value))}}}"
        return f"{{{text[1:-1]}}}"


def _quoted(item: Any) -> str:
    text = str(item).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


class _OneOf(FunctionElement[bool]):
    """Whether a column's value is in a list."""

    type = sa.Boolean()
    inherit_cache = True

    @property
    def comparator(self) -> Any:
        """Make one whenever it is asked for. Kept, it would hold this, and this the list, in a circle.

        Python looks for circles rarely (see ``garbage``): the ids of all pages would pile up.
        """
        return self.type.comparator_factory(self)

    def self_group(self, against: Any = None) -> Any:  # noqa: ARG002
        """Stay as it is: a boolean would become ``(…) = 1`` on SQLite, for which no index is used."""
        return self


@compiles(_OneOf, "sqlite")
def _one_of_sqlite(element: _OneOf, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 - compiled parts


@compiles(_OneOf, "postgresql")
def _one_of_postgresql(element: _OneOf, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(each, **options) for each in element.clauses)
    kind = "bigint" if isinstance(next(iter(element.clauses)).type, sa.Integer) else "text"
    return f"{column} = ANY(CAST({values} AS {kind}[]))"


def one_of(column: sa.Column[T], values: Collection[T] | str) -> sa.ColumnElement[bool]:
    """Whether a column has one of these values, or of those in the parameter of this name.

    One parameter, however many there are: a thousand of them cost fourteen times as much.
    """
    kind = _List()
    bound = sa.bindparam(values, type_=kind) if isinstance(values, str) else sa.bindparam(None, values, kind)
    return _OneOf(column, bound)


def insert(tx: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, which all name the same columns.

    Raises:
        sqlalchemy.exc.DBAPIError: the database refuses one of them; none was added.
    """
    if not rows:
        return
    names = tuple(rows[0])
    into = ", ".join(f'"{name}"' for name in names)
    values = _values(tx, table, names, rows)
    if tx.dialect.name == "postgresql":
        _copy(tx, f'COPY "{table.name}" ({into}) FROM STDIN', values)
    else:
        marks = ", ".join("?" * len(names))
        statement = f'INSERT INTO "{table.name}" ({into}) VALUES ({marks})'  # noqa: S608 - our own names
        tx.exec_driver_sql(statement, values)


def next_ids(tx: Connection, key: sa.Column[int], number: int) -> Sequence[int]:
    """Values for so many rows to come of a key that the database counts up; no one else is given them."""
    if tx.dialect.name != "postgresql":  # as SQLite counts: nobody else writes before this transaction ends
        last = tx.execute(sa.select(sa.func.max(key))).scalar_one() or 0
        return range(last + 1, last + 1 + number)
    counter = sa.select(sa.func.pg_get_serial_sequence(key.table.name, key.name)).scalar_subquery()
    rows = sa.select(sa.func.nextval(counter)).select_from(sa.func.generate_series(1, number).alias())
    return tx.execute(rows).scalars().all()


def update(tx: Connection, table: sa.Table, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Give the rows that have the same ``keys`` the other columns' values; all name the same columns.

    Raises:
        sqlalchemy.exc.DBAPIError: the database refuses one of them.
    """
    if not rows:
        return
    names = (*(name for name in rows[0] if name not in keys), *keys)
    statement, values = _update(table, tuple(keys), names, tx.dialect), _values(tx, table, names, rows)
    if tx.dialect.name == "postgresql":
        text = jsonio.dumps([dict(zip(names, row, strict=True)) for row in values])
        tx.exec_driver_sql(statement, (text,))
    else:
        tx.exec_driver_sql(statement, values)


@lru_cache(maxsize=64)
def _update(table: sa.Table, keys: tuple[str, ...], names: tuple[str, ...], dialect: Dialect) -> str:
    """An update by ``keys``. PostgreSQL gets all rows at once: one by one takes many times as long."""
    together = dialect.name == "postgresql"
    given = {name: f'"{name}" = ' + (f'new."{name}"' if together else "?") for name in names}
    source = ""
    if together:
        kinds = ", ".join(f'"{name}" {table.c[name].type.compile(dialect)}' for name in names)
        source = f" FROM json_to_recordset(CAST(%s AS json)) AS new({kinds})"
    values = ", ".join(given[name] for name in names if name not in keys)
    where = " AND ".join(f'"{table.name}".{given[name]}' for name in keys)
    return f'UPDATE "{table.name}" SET {values}{source} WHERE {where}'  # noqa: S608 - our own names


def _values(
    tx: Connection, table: sa.Table, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]]
) -> list[tuple[Any, ...]]:
    """Rows as the driver takes them."""
    columns: list[Sequence[Any]] = list(zip(*map(itemgetter(*names), rows), strict=True))
    for place, process in enumerate(_processors(table, names, tx.dialect)):
        if process is not None:
            columns[place] = _converted(columns[place], process)
    return list(zip(*columns, strict=True))


def _converted(values: Sequence[Any], process: Callable[[Any], Any]) -> list[Any]:
    """A column as the driver takes it. Rows that come together share moments: each is written out once."""
    if len(set(map(id, values))) == 1:
        return [process(values[0])] * len(values)
    return [process(value) for value in values]


def upsert(tx: Connection, table: sa.Table) -> Any:
    """An insert that may say what becomes of a row that is there: spelt alike, found in two places."""
    return import_module(f"sqlalchemy.dialects.{tx.dialect.name}").insert(table)


def _copy(tx: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    import psycopg  # noqa: PLC0415 - PostgreSQL only

    driver: Any = tx.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as out:
            for row in rows:
                out.write_row(row)
    except psycopg.Error as error:
        raise DBAPIError.instance(statement, None, error, psycopg.Error, dialect=tx.dialect) from None


@lru_cache(maxsize=64)
def _processors(
    table: sa.Table, names: tuple[str, ...], dialect: Dialect
) -> tuple[Callable[[Any], Any] | None, ...]:
    """What makes of each column's value the one that the driver takes."""
    return tuple(
        _OURS.get(type(table.c[name].type))
        or table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
        for name in names
    )


def _json(value: Any) -> str | None:
    return None if value is None else jsonio.dumps(value)


def _moment(value: datetime | str | None) -> str | None:
    """An instant as text: both databases take it, and PostgreSQL's driver takes longer over a datetime."""
    return instants.to_text(value) if isinstance(value, datetime) else value


_OURS: dict[type, Callable[[Any], Any]] = {Instant: _moment, Json: _json}
"""Asked past SQLAlchemy's own way, which makes three calls of each."""
