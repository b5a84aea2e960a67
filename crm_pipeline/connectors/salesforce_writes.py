"""Salesforce's sObject Collections: updates by id, creates by external id, 200 in a call, judged by place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from crm_pipeline.connectors.base import Json, Write, WriteResult, WriteStatus
from crm_pipeline.connectors.reasons import reason
from crm_pipeline.connectors.session import Answer, Session, is_success
from crm_pipeline.connectors.turns import Turn, send_batch
from crm_pipeline.connectors.vendor import chunks

BATCH = 200
_COLLECTION = "composite/sobjects"
_LATER = frozenset({"UNABLE_TO_LOCK_ROW", "SERVER_UNAVAILABLE", "QUERY_TIMEOUT", "REQUEST_LIMIT_EXCEEDED"})
_GONE = frozenset({"ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID"})
_TAKEN = frozenset({"DUPLICATE_VALUE", "DUPLICATES_DETECTED"})
_CONFLICT = 409


class SalesforceWriter:
    """Writes contacts in collections."""

    def __init__(self, session: Session, url: Callable[[str], str], unique: str | None) -> None:
        """``unique``: the external id field that creates are upserted by, where there is one."""
        self._session, self._url, self._unique = session, url, unique

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write records; one result each, in the order given. See ``Connector.write``."""
        turn = Turn(writes)
        kinds = [self._kind(write) for write in writes]
        for kind, method, path in (
            ("update", "PATCH", _COLLECTION),
            ("upsert", "PATCH", f"{_COLLECTION}/Contact/{self._unique}"),
            ("create", "POST", _COLLECTION),
        ):
            places = [place for place, own in enumerate(kinds) if own == kind]
            for some in chunks(places, BATCH):
                if turn.due(some):
                    rows = {place: self._row(writes[place]) for place in some}
                    call = (method, self._url(path))
                    send_batch(self._session, turn, rows, call, _collection, partial(_judged, writes))
        return turn.finish()

    def _kind(self, write: Write) -> str:
        if write.external_id is not None:
            return "update"
        return "upsert" if self._unique and write.changes.get(self._unique) else "create"

    def _row(self, write: Write) -> Json:
        row = {"attributes": {"type": "Contact"}, **write.changes}
        return row if write.external_id is None else {**row, "id": write.external_id}


def _collection(records: list[Json]) -> Json:
    """Each row for itself: an innocent one is not taken back for another's sake."""
    return {"allOrNone": False, "records": records}


def _judged(writes: Sequence[Write], answer: Answer, places: list[int]) -> dict[int, WriteResult] | None:
    """Read a collection's answer: 200, and one result for each row in the order sent."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if not is_success(answer.status):
        if len(places) == 1 and isinstance(body, list) and body:
            write = writes[places[0]]
            return {
                places[0]: WriteResult(
                    WriteStatus.REFUSED, write.external_id, reason=reason(answer.status, body, write)
                )
            }
        return None
    if not isinstance(body, list) or len(body) != len(places):
        return {}
    return {place: _result(writes[place], row) for place, row in zip(places, body, strict=True)}


def _result(write: Write, row: Any) -> WriteResult:
    row = row if isinstance(row, dict) else {}
    own_id = row.get("id")
    if row.get("success") is True and isinstance(own_id, str) and own_id:
        return WriteResult(WriteStatus.WRITTEN, own_id)
    errors = [each for each in row.get("errors") or [] if isinstance(each, dict)]
    if row.get("success") is not False or not errors:
        text = "the batch's result does not say what became of the record"
        return WriteResult(WriteStatus.UNKNOWN, write.external_id, reason=text)
    return refusal(write, errors)


def refusal(write: Write, errors: Sequence[Mapping[str, Any]]) -> WriteResult:
    """Judge a row that was not written, by its codes."""
    codes = {str(each.get("statusCode")) for each in errors}
    told = [
        {"code": each.get("statusCode"), "errors": [{"field": name} for name in each.get("fields") or []]}
        for each in errors
    ]
    status = WriteStatus.REFUSED
    if codes & _LATER:
        status = WriteStatus.FAILED
    elif codes & _GONE and write.external_id is not None:
        status = WriteStatus.GONE
    in_the_way = _in_the_way(errors) if codes & _TAKEN and write.external_id is None else None
    return WriteResult(
        status, in_the_way or write.external_id, reason=reason(_CONFLICT if in_the_way else None, told, write)
    )


def _in_the_way(errors: Sequence[Mapping[str, Any]]) -> str | None:
    """The record that a duplicate rule names; a unique field's text is not read for one."""
    for error in errors:
        found = error.get("duplicateResult")
        for match in (found.get("matchResults") or []) if isinstance(found, dict) else []:
            for record in match.get("matchRecords") or []:
                own = (record.get("record") or {}).get("Id")
                if isinstance(own, str):
                    return own
    return None
