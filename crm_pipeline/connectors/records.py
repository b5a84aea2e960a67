"""Records inside answers: where they are, and each one's id, modified time and deletion."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from crm_pipeline import jsonio
from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import CrmAnswerError, Json, Record
from crm_pipeline.connectors.documents import dig, first

_LISTS = (
    "records",
    "data",
    "results",
    "items",
    "value",
    "contacts",
    "list",
    "_embedded.contacts",
    "data.records",
    "data.items",
    "data.results",
    "data.contacts",
)
"""Where lists of records usually are, the surest first."""
_SINGLES = ("data", "record", "contact", "result", "item")
"""What a single record is usually wrapped in."""
_FALSE_WORDS = frozenset({"", "0", "false", "no"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS = 100_000_000_000
"""As seconds it would lie after the year 5000: from here on a number counts milliseconds."""
_SHORTEST_EPOCH = 9
"""Digits; a shorter run of digits is a compact date such as 20260131."""
_LARGEST_EXACT = 2**53


class RecordReader:
    """Finds records where a connection keeps them."""

    def __init__(self, connection: Connection) -> None:
        """Compile the connection's paths."""
        self._path = connection.records.path
        self._zone = ZoneInfo(connection.timezone)
        self._id = _getter(connection.records.id)
        self._modified = _getter(connection.records.modified)
        self._deleted = connection.records.deleted

    def page(self, found: Json) -> list[Record]:
        """All records of a listing's page.

        Raises:
            CrmAnswerError: there is no list of records in it.
        """
        return [self.record(item) for item in self.items(found, self._path)]

    def items(self, found: Json, at: str | None) -> list[Json]:
        """Return the raw list at a path, or at a usual place. A null there is an empty one.

        Raises:
            CrmAnswerError: as in ``page``.
        """
        if at is None and isinstance(found, list):
            return found
        empty = False
        for path in _LISTS if at is None else (at,):
            value = dig(found, path)
            if isinstance(value, list):
                return value
            empty = empty or (value is None and isinstance(found, dict) and path in found)
        if empty:
            return []
        raise CrmAnswerError("the answer holds no list of records; records.path says where one is")

    def record(self, item: Json) -> Record:
        """One record; JSON:API's attributes are lifted to where everybody else has them."""
        if not isinstance(item, dict):
            return Record(item)
        if "attributes" in item and "type" in item and "id" in item:
            item = _lifted(item)
        external_id = id_text(self._id(item))
        if external_id is not None and jsonio.why_no_key(external_id) is not None:
            return Record([item])  # set aside, as no object: it cannot be kept under its id
        return Record(
            item,
            external_id,
            self._instant(self._modified(item)),
            self._deleted is not None and _is_true(dig(item, self._deleted)),
        )

    def single(self, found: Json, path: str | None = None) -> Record | None:
        """Record that an answer about one record holds; None where it holds none."""
        if path is not None:
            found = dig(found, path)
        elif self.id_of(found) is None:
            inner = self.wrapped(found)
            found = found if inner is None else inner
        return self.record(found) if isinstance(found, dict) else None

    def wrapped(self, found: Json) -> Json:
        """Return the object with an id inside a usual wrapper, None without one."""
        if not isinstance(found, dict):
            return None
        inner = (found.get(name) for name in _SINGLES)
        return next((each for each in inner if self.id_of(each) is not None), None)

    def looked_up(self, found: Json) -> list[Record]:
        """Records that answer a lookup: a listing, or just the one record.

        Raises:
            CrmAnswerError: neither.
        """
        try:
            return self.page(found)
        except CrmAnswerError:
            one = self.single(found)
            if one is None or one.external_id is None:
                raise
            return [one]

    def id_of(self, found: Json) -> str | None:
        """Id that an object carries, and can be kept under."""
        external_id = id_text(self._id(found)) if isinstance(found, dict) else None
        return None if external_id is None or jsonio.why_no_key(external_id) is not None else external_id

    def _instant(self, value: Json) -> datetime | None:
        if value is None:
            return None
        try:
            return instant(value, self._zone)
        except (ValueError, OverflowError):
            return None


def instant(value: Json, zone: ZoneInfo) -> datetime:
    """Read ISO text, epoch seconds or epoch milliseconds; a naive text is in ``zone``. In UTC.

    Raises:
        ValueError: it is none of them.
        OverflowError: it lies outside the years 1 to 9999.
    """
    if isinstance(value, str):
        if not (value.isdecimal() and len(value) >= _SHORTEST_EPOCH):
            moment = datetime.fromisoformat(value)
            return (moment.replace(tzinfo=zone) if moment.tzinfo is None else moment).astimezone(UTC)
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a time")  # noqa: TRY004 - a CRM's odd value, not a caller's mistake
    return _EPOCH + (timedelta(milliseconds=value) if abs(value) >= _FIRST_MS else timedelta(seconds=value))


def _lifted(item: dict[str, Any]) -> dict[str, Any]:
    attributes = item["attributes"]
    if not isinstance(attributes, dict):
        return item
    outer = {name: value for name, value in item.items() if name != "attributes"}
    return {**outer, **attributes, "id": item["id"]}


def _getter(paths: tuple[str, ...]) -> Callable[[dict[str, Any]], Json]:
    """Compile ``first`` for one set of paths: nearly always the first one is a plain key."""
    main = paths[0] if paths else ""

    def get(item: dict[str, Any]) -> Json:
        value = item.get(main)
        return first(item, paths) if value is None else value

    return get


def id_text(value: Json) -> str | None:
    """Return an id as text, None for what is none.

    Ids are texts or whole numbers. A float past 2**53 is no longer the number that was sent.
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_EXACT:
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def key_at(item: Json, paths: tuple[str, ...]) -> tuple[str | None, dict[str, str]]:
    """The id at the first path that leads to something; or, by that path, why no record is kept under it."""
    for path in paths:
        value = dig(item, path)
        if value is not None:
            found = id_text(value)
            wrong = jsonio.why_no_key(found) if found is not None else None
            return (found, {}) if wrong is None else (None, {path: wrong})
    return None, {}


def _is_true(value: Json) -> bool:
    return value.lower() not in _FALSE_WORDS if isinstance(value, str) else bool(value)
