"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from crm_pipeline import instants, jsonio


class Instant(sa.TypeDecorator[datetime]):
    """A moment. PostgreSQL: timestamptz. SQLite: UTC text of fixed width, which sorts.

    On SQLite other programs can write any text into the column: what is no time comes
    back as that text, for the reader to judge, because one odd row must not stop a batch.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Pick the type for a database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: datetime | str | None, dialect: Dialect) -> Any:
        """Take an aware datetime, or the canonical text of one."""
        if value is None:
            return None
        if dialect.name == "postgresql":
            return instants.from_text(value) if isinstance(value, str) else value
        return value if isinstance(value, str) else instants.to_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Give an aware datetime in UTC, or text that is no time."""
        return None if value is None else self.decode(value)

    @staticmethod
    def decode(value: Any) -> Any:
        """As above, of a value that is there; both drivers' values differ in kind."""
        if isinstance(value, datetime):
            return value if value.tzinfo is UTC else value.astimezone(UTC)
        try:
            return instants.from_text(value)
        except (TypeError, ValueError):
            return str(value)


class Json(sa.TypeDecorator[Any]):
    """A JSON document of ours, as text with sorted keys."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Encode; None is SQL NULL."""
        return None if value is None else jsonio.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Decode."""
        return None if value is None else self.decode(value)

    decode = staticmethod(jsonio.loads)


class OpenJson(sa.TypeDecorator[Any]):
    """A JSON object other programs write as well: jsonb on PostgreSQL, text on SQLite.

    Text that is no JSON object reads as an empty one, so that one odd row stops nothing.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Pick the type for a database."""
        if dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415 - PostgreSQL only

            return dialect.type_descriptor(JSONB())
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Encode on SQLite; psycopg does it for jsonb."""
        if value is None or dialect.name == "postgresql":
            return value
        return jsonio.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Decode on SQLite."""
        return self.decode(value)

    @staticmethod
    def decode(value: Any) -> dict[str, Any]:
        """Decode whatever is there."""
        if isinstance(value, str):
            try:
                value = jsonio.loads(value)
            except ValueError:
                return {}
        return value if isinstance(value, dict) else {}


class utc_now(FunctionElement[datetime]):  # noqa: N801 - an SQL function, named like one
    """The database's clock, as ``Instant`` stores it."""

    type = Instant()
    inherit_cache = True


@compiles(utc_now, "sqlite")
def _utc_now_sqlite(_element: utc_now, _compiler: Any, **_options: Any) -> str:
    return "(strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))"


@compiles(utc_now, "postgresql")
def _utc_now_postgresql(_element: utc_now, _compiler: Any, **_options: Any) -> str:
    return "clock_timestamp()"
