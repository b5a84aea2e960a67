"""Zoho's writes: updates by id and upserts by our unique field, a hundred in a call, judged by place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from crm_pipeline.connectors.base import Json, Record, Write, WriteResult, WriteStatus
from crm_pipeline.connectors.reasons import reason
from crm_pipeline.connectors.session import Answer, Session
from crm_pipeline.connectors.turns import Turn, send_batch
from crm_pipeline.connectors.vendor import chunks

BATCH = 100
_LATER = frozenset({"RECORD_LOCKED", "LIMIT_EXCEEDED", "TOO_MANY_REQUESTS", "INTERNAL_ERROR"})
_CONFLICT = 409


class ZohoWriter:
    """Writes contacts in batches; workflows are not run for them, which would echo."""

    def __init__(self, session: Session, url: Callable[[str], str], unique: str | None) -> None:
        """``unique``: the field that creates are matched by, where there is one."""
        self._session, self._url, self._unique = session, url, unique

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write records; one result each, in the order given. See ``Connector.write``."""
        turn = Turn(writes)
        kinds = [self._kind(write) for write in writes]
        for kind, method, path, more in (
            ("update", "PUT", "", {}),
            ("upsert", "POST", "/upsert", {"duplicate_check_fields": [self._unique]}),
            ("create", "POST", "", {}),
        ):
            places = [place for place, own in enumerate(kinds) if own == kind]
            for some in chunks(places, BATCH):
                if turn.due(some):
                    rows = {place: _row(writes[place]) for place in some}
                    body = partial(_body, more)
                    call = (method, self._url(path))
                    send_batch(self._session, turn, rows, call, body, partial(_judged, writes))
        return turn.finish()

    def _kind(self, write: Write) -> str:
        if write.external_id is not None:
            return "update"
        return "upsert" if self._unique and write.changes.get(self._unique) else "create"


def _row(write: Write) -> Json:
    return write.changes if write.external_id is None else {**write.changes, "id": write.external_id}


def _body(more: dict[str, Any], rows: list[Json]) -> Json:
    return {"data": rows, **more, "trigger": []}


def _judged(writes: Sequence[Write], answer: Answer, places: list[int]) -> dict[int, WriteResult] | None:
    """Read ``data`` row by row: the status beside it is no verdict."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or len(rows) != len(places):
        return None
    return {place: _result(writes[place], row) for place, row in zip(places, rows, strict=True)}


def _result(write: Write, row: Any) -> WriteResult:
    row = row if isinstance(row, dict) else {}
    details = row.get("details")
    details = details if isinstance(details, dict) else {}
    own_id, code = details.get("id"), row.get("code")
    if code == "SUCCESS" and isinstance(own_id, str) and own_id:
        return WriteResult(WriteStatus.WRITTEN, own_id, Record({}, own_id, _time(details)))
    if not isinstance(code, str) or row.get("status") != "error":
        text = "the batch's result does not say what became of the record"
        return WriteResult(WriteStatus.UNKNOWN, write.external_id, reason=text)
    status = WriteStatus.REFUSED
    if code in _LATER:
        status = WriteStatus.FAILED
    elif code == "INVALID_DATA" and details.get("api_name") == "id" and write.external_id is not None:
        status = WriteStatus.GONE
    in_the_way = _in_the_way(details) if code == "DUPLICATE_DATA" and write.external_id is None else None
    told = {"code": code, "field": details.get("api_name")}
    return WriteResult(
        status, in_the_way or write.external_id, reason=reason(_CONFLICT if in_the_way else None, told, write)
    )


def _time(details: dict[str, Any]) -> datetime | None:
    """When the record was last modified, by our write: an answer shows no more of it."""
    try:
        moment = datetime.fromisoformat(str(details.get("Modified_Time")))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _in_the_way(details: dict[str, Any]) -> str | None:
    """The record that holds the value already; versions differ in where they name it."""
    inner = details.get("duplicate_record")
    own = details.get("id") or (inner.get("id") if isinstance(inner, dict) else None)
    return own if isinstance(own, str) else None
