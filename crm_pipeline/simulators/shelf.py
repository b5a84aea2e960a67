"""Records in memory, in the two orders a CRM lists them: by creation and by change."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

Key = tuple[Any, ...]
"""Place of a row in one of the orders."""

_ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """One record, kept as the JSON text that goes out."""

    seq: int
    """Place in the order of creation."""
    id: str
    updated_at: str
    raw: bytes
    unique: str | None
    """Value a lookup finds the record by."""
    unique_since: datetime = _ALWAYS
    """When it took that value: a search index may lag behind."""

    @property
    def record(self) -> dict[str, Any]:
        """A fresh copy of the record."""
        record: dict[str, Any] = orjson.loads(self.raw)
        return record


def _by_creation(row: Row) -> Key:
    return (row.seq,)


def _by_change(row: Row) -> Key:
    return (row.updated_at, row.id)


@dataclass(frozen=True, slots=True)
class Selection:
    """A stretch of one order. Valid only until the shelf changes."""

    rows: list[Row]
    start: int
    stop: int
    key: Callable[[Row], Key]

    def __len__(self) -> int:
        """How many rows it holds."""
        return self.stop - self.start

    def offset_after(self, key: Key) -> int:
        """Offset of the first row past ``key``, whether or not that row still exists."""
        place = bisect_right(self.rows, key, self.start, self.stop, key=self.key)
        return place - self.start

    def cut(self, offset: int, limit: int) -> list[Row]:
        """Up to ``limit`` rows from ``offset`` on."""
        first = min(self.start + offset, self.stop)
        return self.rows[first : min(first + limit, self.stop)]


class Shelf:
    """Rows by id, in both orders and by unique value. Not thread-safe: its owner locks."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        """Take rows, in the order of their ``seq``. ``ValueError`` when two share an id."""
        self._created = list(rows)
        self._changed = sorted(self._created, key=_by_change)
        self.by_id = {row.id: row for row in self._created}
        if len(self.by_id) != len(self._created):
            raise ValueError("two records share an id")
        self._unique: dict[str, dict[str, None]] = {}
        for row in self._created:
            self._index(row)

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._created)

    @property
    def created(self) -> list[Row]:
        """All rows by creation; not to be changed."""
        return self._created

    def add(self, row: Row) -> None:
        """Put a row of a new id in its places."""
        insort(self._created, row, key=_by_creation)
        insort(self._changed, row, key=_by_change)
        self.by_id[row.id] = row
        self._index(row)

    def replace(self, row: Row) -> None:
        """Put a row in the place of the one with its id and ``seq``. ``KeyError`` when there is none."""
        self._forget(self.by_id[row.id])
        self._created[self._place(row)] = row
        insort(self._changed, row, key=_by_change)
        self.by_id[row.id] = row
        self._index(row)

    def remove(self, record_id: str) -> None:
        """Take a row out. Raises ``KeyError`` when there is none."""
        row = self.by_id.pop(record_id)
        self._forget(row)
        del self._created[self._place(row)]

    def all(self) -> Selection:
        """Every row, oldest creation first."""
        return Selection(self._created, 0, len(self._created), _by_creation)

    def changed(self, since: str | None, before: str | None) -> Selection:
        """Rows with ``since <= updated_at < before``, oldest change first, ties by id."""
        start = bisect_left(self._changed, (since,), key=_by_change) if since else 0
        stop = bisect_left(self._changed, (before,), key=_by_change) if before else len(self._changed)
        return Selection(self._changed, start, max(start, stop), _by_change)

    def holding(self, unique: str) -> list[Row]:
        """Rows whose unique value is exactly this one, oldest holder first."""
        return [self.by_id[record_id] for record_id in self._unique.get(unique, ())]

    def _index(self, row: Row) -> None:
        if row.unique is not None:
            self._unique.setdefault(row.unique, {})[row.id] = None

    def _place(self, row: Row) -> int:
        return bisect_left(self._created, _by_creation(row), key=_by_creation)

    def _forget(self, row: Row) -> None:
        """Take a row out of the order of change and the index of unique values."""
        del self._changed[bisect_left(self._changed, _by_change(row), key=_by_change)]
        if row.unique is not None:
            holders = self._unique[row.unique]
            del holders[row.id]
            if not holders:
                del self._unique[row.unique]
