"""HubSpot's batches: updates by id, creates by our unique property, each row judged by its trace."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from crm_pipeline.connectors.base import Json, Write, WriteResult, WriteStatus
from crm_pipeline.connectors.reasons import is_code, reason
from crm_pipeline.connectors.records import RecordReader
from crm_pipeline.connectors.session import Answer, Session, is_success
from crm_pipeline.connectors.turns import Turn, send_batch
from crm_pipeline.connectors.vendor import chunks

_TRACE = "objectWriteTraceId"
_EXISTING = re.compile(r"Existing ID: ?([0-9]+)|([0-9]+) already has that value")
_LATER = frozenset({"RATE_LIMITS", "RATE_LIMIT", "LOCKED"})
_CONFLICT = 409


class HubSpotWriter:
    """Writes contacts in batches."""

    def __init__(
        self, session: Session, reader: RecordReader, url: str, unique: str | None, size: int
    ) -> None:
        """``unique``: the property creates are upserted by, where there is one."""
        self._session, self._reader, self._url = session, reader, url
        self._unique, self._size = unique, size

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write records; one result each, in the order given. See ``Connector.write``."""
        turn = Turn(writes)
        rows = {place: self._row(write, place) for place, write in enumerate(writes)}
        for action in ("update", "upsert", "create"):
            places = [place for place, (kind, _) in rows.items() if kind == action]
            for some in chunks(places, self._size):
                send_batch(
                    self._session,
                    turn,
                    {place: rows[place][1] for place in some},
                    ("POST", f"{self._url}/batch/{action}"),
                    lambda inputs: {"inputs": inputs},
                    partial(self._judged, writes),
                )
        return turn.finish()

    def _row(self, write: Write, place: int) -> tuple[str, Json]:
        """Which batch a write goes with, and what is sent of it."""
        properties = write.changes.get("properties", {})
        row = {_TRACE: str(place), "properties": properties}
        if write.external_id is not None:
            return "update", {**row, "id": write.external_id}
        value = properties.get(self._unique) if self._unique else None
        if value:
            return "upsert", {**row, "id": str(value), "idProperty": self._unique}
        return "create", row

    def _judged(
        self, writes: Sequence[Write], answer: Answer, places: list[int]
    ) -> dict[int, WriteResult] | None:
        """Read 200, 201 and 207: good rows in ``results``, bad ones in ``errors``, in no order."""
        try:
            body = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            return {} if is_success(answer.status) else None
        if not is_success(answer.status):
            return self._alone(writes, answer, body, places)
        by_key = self._keys(writes, places)
        found: dict[int, WriteResult] = {}
        for error in _dicts(body.get("errors")):
            for place in _places(error, by_key, places):
                found[place] = _failed(writes[place], error)
        for row in _dicts(body.get("results")):
            own = self._place(row, by_key, places)
            if own is not None:
                found[own] = self._written(writes[own], row)
        return found

    def _alone(
        self, writes: Sequence[Write], answer: Answer, body: Mapping[str, Any], places: list[int]
    ) -> dict[int, WriteResult] | None:
        """Judge one row that was refused as a batch of one; None for more, which are cut in two."""
        if len(places) > 1 or answer.status not in {400, 409, 404}:
            return None
        return {places[0]: _failed(writes[places[0]], body)}

    def _keys(self, writes: Sequence[Write], places: list[int]) -> dict[str, int]:
        """Places by what a row without its trace is known by: id or unique value."""
        keys = {}
        for place in places:
            properties = writes[place].changes.get("properties", {})
            own = writes[place].external_id or (properties.get(self._unique) if self._unique else None)
            if own is not None:
                keys[str(own)] = place
        return keys

    def _place(self, row: Mapping[str, Any], by_key: Mapping[str, int], places: list[int]) -> int | None:
        trace = _trace(row.get(_TRACE), places)
        if trace is not None:
            return trace
        properties = row.get("properties")
        value = properties.get(self._unique) if isinstance(properties, dict) and self._unique else None
        return by_key.get(str(row.get("id")), by_key.get(str(value)))

    def _written(self, write: Write, row: dict[str, Any]) -> WriteResult:
        record = self._reader.record(row)
        if record.external_id is None:
            text = "the CRM took the record and does not say under which id"
            return WriteResult(WriteStatus.UNKNOWN, write.external_id, reason=text)
        properties = row.get("properties")
        shown = isinstance(properties, dict) and bool(
            properties.keys() & write.changes.get("properties", {}).keys()
        )
        if not shown:
            return WriteResult(WriteStatus.WRITTEN, record.external_id)
        # An answer holds some properties only: without the rest of a record's keys it is no whole one.
        part = self._reader.record({"properties": properties, "updatedAt": row.get("updatedAt")})
        return WriteResult(WriteStatus.WRITTEN, record.external_id, part)


def _failed(write: Write, error: Mapping[str, Any]) -> WriteResult:
    category, message = error.get("category"), str(error.get("message", ""))
    told = {"code": category, "errors": _named(message)}
    status = WriteStatus.REFUSED
    if category in _LATER:
        status = WriteStatus.FAILED
    elif category == "OBJECT_NOT_FOUND" and write.external_id is not None:
        status = WriteStatus.GONE
    existing = _EXISTING.search(message)
    in_the_way = next((each for each in existing.groups() if each), None) if existing else None
    if write.external_id is not None:
        in_the_way = None
    code = _CONFLICT if existing else None
    return WriteResult(status, in_the_way or write.external_id, reason=reason(code, told, write))


def _named(message: str) -> list[dict[str, str]]:
    """Codes and properties of a message that has a list of them inside: nothing else of its words."""
    start = message.find("[{")
    try:
        found = orjson.loads(message[start : message.rfind("]") + 1]) if start >= 0 else []
    except orjson.JSONDecodeError:
        found = []
    return [
        {"error": str(item.get("error")), "property": str(item.get("name"))}
        for item in _dicts(found)
        if is_code(item.get("error"))
    ]


def _places(error: Mapping[str, Any], by_key: Mapping[str, int], places: list[int]) -> list[int]:
    """Rows an error is about: by trace, or by id."""
    context = error.get("context")
    context = context if isinstance(context, dict) else {}
    traced = [_trace(each, places) for each in _listed(context.get(_TRACE))]
    named = [by_key.get(str(each)) for each in _listed(context.get("ids"))]
    return [place for place in [*traced, *named] if place is not None]


def _trace(value: Any, places: list[int]) -> int | None:
    place = int(value) if isinstance(value, str) and value.isdecimal() else -1
    return place if place in places else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in _listed(value) if isinstance(item, dict)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
