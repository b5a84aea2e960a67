"""Raw reading: values as the driver gives them, decoded by their columns' own rules, a column at a time.

SQLAlchemy asks two functions for each value, also where there is none: for rows that hold many that
costs more than the database does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from crm_pipeline.store.types import Instant, Json, OpenJson


class Columns:
    """Columns of a select, in order."""

    def __init__(self, columns: Sequence[sa.Column[Any]]) -> None:
        """Take them; ``raw`` is what to select."""
        self.names = tuple(column.name for column in columns)
        self._odd = [
            (place, column.type.decode)
            for place, column in enumerate(columns)
            if isinstance(column.type, Instant | Json | OpenJson)
        ]
        odd = {place for place, _ in self._odd}
        self.raw = tuple(
            sa.type_coerce(column, sa.Text()).label(column.name) if place in odd else column
            for place, column in enumerate(columns)
        )

    def rows(
        self, tx: Connection, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """All rows of a query that selects ``raw``."""
        columns: list[Sequence[Any]] = list(zip(*tx.execute(query, parameters).all(), strict=True))
        if columns:
            for place, decode in self._odd:
                given = columns[place]
                if given.count(None) < len(given):
                    columns[place] = [None if value is None else decode(value) for value in given]
        return list(zip(*columns, strict=True))
