"""What an answer says about a write. Success is never assumed: it has to be told.

| told                                      | verdict                                         |
|-------------------------------------------|-------------------------------------------------|
| 2xx, body empty or about the record       | WRITTEN; a create without a new id is UNKNOWN   |
| 2xx with a failure in the body            | by the code in the body, else REFUSED           |
| 2xx with a body that is no JSON           | UNKNOWN                                         |
| 404, 410                                  | GONE for a change, REFUSED for a create         |
| 401, 402, 403, 407, 423, 425, 429, and    | FAILED                                          |
| 503 with Retry-After                      |                                                 |
| 412                                       | CHANGED for a change, REFUSED for a create      |
| any other 4xx                             | REFUSED; a 409 may name the record in the way   |
| 3xx, 408 and any other 5xx                | UNKNOWN                                         |

One result of a batch is judged the same way by its status, which may also be a word or a
boolean. Without a status, it counts as written only where the batch succeeded, the result
carries the record's id (of a change: the very id sent), and no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from crm_pipeline.connection import BatchCall
from crm_pipeline.connectors.base import CrmAnswerError, Json, Record, Write, WriteResult, WriteStatus
from crm_pipeline.connectors.documents import dig, document, first, says_failure
from crm_pipeline.connectors.reasons import reason
from crm_pipeline.connectors.records import RecordReader, id_text
from crm_pipeline.connectors.repeats import certainly_not_applied
from crm_pipeline.connectors.session import Answer, is_success

_LATER = frozenset({401, 402, 403, 407, 423, 425, 429})
_MISSING = frozenset({404, 410})
_MOVED_ON = 412
_TIMEOUT = 408
_CONFLICT = 409
_WORDS = {
    WriteStatus.WRITTEN: "success succeeded ok created updated upserted unchanged written complete completed",
    WriteStatus.REFUSED: "error fail failed failure invalid rejected refused duplicate conflict",
    WriteStatus.GONE: "not_found gone deleted",
    WriteStatus.FAILED: "locked throttled rate_limited unavailable",
}
_STATUS_OF_WORD = {word: status for status, words in _WORDS.items() for word in words.split()}
_CODES = ("code", "status", "statusCode", "error.code", "error.status")
_IN_THE_WAY = (
    "existing_id",
    "existingId",
    "existing.id",
    "duplicate_id",
    "error.existing_id",
    "error.existingId",
    "error.existing.id",
    "details.existing_id",
)
"""Where a 409 names the record that is in the way. A plain ``id`` may be the error's own."""


def status_of(code: int, *, creating: bool) -> WriteStatus:
    """Judge an HTTP status."""
    if is_success(code):
        return WriteStatus.WRITTEN
    if code in _LATER:
        return WriteStatus.FAILED
    if code == _MOVED_ON and not creating:
        return WriteStatus.CHANGED
    if code in _MISSING and not creating:
        return WriteStatus.GONE
    of_content = 400 <= code < 500 and code != _TIMEOUT  # noqa: PLR2004
    return WriteStatus.REFUSED if of_content else WriteStatus.UNKNOWN


class _Told(NamedTuple):
    """One result of a batch."""

    row: Json
    record: Json
    """The record inside it, or the result itself."""
    id: str | None
    """Of the record."""


class Verdicts:
    """Reads answers to writes the way a connection describes them."""

    def __init__(self, reader: RecordReader, max_depth: int) -> None:
        """Take what finds records in answers."""
        self._reader, self._max_depth = reader, max_depth

    def single(self, answer: Answer, write: Write, record_path: str | None) -> WriteResult:
        """Judge the answer to one write."""
        body = self._body(answer)
        status = status_of(answer.status, creating=write.external_id is None)
        if certainly_not_applied(answer.status, answer.headers):
            status = WriteStatus.FAILED
        if status is not WriteStatus.WRITTEN:
            return _failed(status, answer.status, body, write, _located(answer))
        if body is None and answer.body.strip():
            return WriteResult(WriteStatus.UNKNOWN, write.external_id, reason="the answer is no JSON")
        if says_failure(body):
            return _failed(_status_inside(body, write), answer.status, body, write)
        record = self._reader.single(body, record_path)
        return _written(write, record, self._reader.id_of(body) or _located(answer))

    def rows(self, answer: Answer, writes: Sequence[Write], call: BatchCall) -> list[WriteResult] | None:
        """Judge the answer to a batch; None where it does not list one result for each write."""
        body = self._body(answer)
        try:
            rows = self._reader.items(body, call.results)
        except CrmAnswerError:
            return None
        if len(rows) != len(writes):
            return None
        told = [self._told(row, call) for row in rows]
        sent = [write.external_id for write in writes]
        if any(
            each.id is not None and own is not None and each.id != own
            for each, own in zip(told, sent, strict=True)
        ):
            by_id = {each.id: each for each in told}
            if len(by_id) != len(rows) or by_id.keys() != set(sent):
                return None  # results of other records: whose is whose, no one can tell
            told = [by_id[own] for own in sent]
        proven = is_success(answer.status)
        return [self._row(each, write, call, proven) for each, write in zip(told, writes, strict=True)]

    def _row(self, result: _Told, write: Write, call: BatchCall, proven: bool) -> WriteResult:  # noqa: FBT001
        row, inner, external_id = result
        told = dig(row, call.result_status)
        status = _status_told(told, creating=write.external_id is None)
        failed = bool(dig(row, call.result_error)) or says_failure(row)
        if status is None and failed:
            status = _status_inside(row, write)
        elif status is None and proven and external_id is not None:
            status = WriteStatus.WRITTEN
        if status is None or (status is WriteStatus.WRITTEN and failed):
            text = "the batch's result does not say what became of the record"
            return WriteResult(WriteStatus.UNKNOWN, write.external_id, reason=text)
        if status is not WriteStatus.WRITTEN:
            return _failed(status, told, row, write)
        if inner is row and isinstance(told, int):
            inner = {name: value for name, value in row.items() if name != call.result_status}
        record = self._reader.record(inner) if isinstance(inner, dict) else None
        return _written(write, record, external_id)

    def _told(self, row: Json, call: BatchCall) -> _Told:
        """A batch's result, and the record it is about."""
        inner = dig(row, call.result_record) if call.result_record else self._reader.wrapped(row)
        if inner is None:
            inner = row
        return _Told(row, inner, self._reader.id_of(inner) or self._reader.id_of(row))

    def _body(self, answer: Answer) -> Json:
        """Body of an answer, None where it is no JSON."""
        try:
            return document(answer, self._max_depth)
        except CrmAnswerError:
            return None


def _written(write: Write, record: Record | None, other_id: str | None) -> WriteResult:
    """Success, with the record only where the answer really shows it: some fields that were sent."""
    external_id = (record.external_id if record else None) or other_id or write.external_id
    if external_id is None:
        text = "the CRM took the record and does not say under which id"
        return WriteResult(WriteStatus.UNKNOWN, reason=text)
    payload = record.payload if record is not None else None
    shown = isinstance(payload, dict) and bool(payload.keys() & write.changes.keys())
    return WriteResult(WriteStatus.WRITTEN, external_id, record if shown else None)


def _failed(
    status: WriteStatus, told: Json, body: Json, write: Write, located: str | None = None
) -> WriteResult:
    in_the_way = None
    if told == _CONFLICT and write.external_id is None:
        in_the_way = id_text(first(body, _IN_THE_WAY)) or located
    return WriteResult(status, in_the_way or write.external_id, reason=reason(told, body, write))


def _status_told(told: Json, *, creating: bool) -> WriteStatus | None:
    """Judge a status inside a body: a code, a boolean or a word. None for what is no status."""
    if isinstance(told, bool):
        return WriteStatus.WRITTEN if told else WriteStatus.REFUSED
    if isinstance(told, str) and not told.isdecimal():
        return _STATUS_OF_WORD.get(told.lower())
    code = int(told) if isinstance(told, str | int) else 0
    return status_of(code, creating=creating) if 200 <= code < 600 else None  # noqa: PLR2004


def _status_inside(body: Json, write: Write) -> WriteStatus:
    """Judge a failure told inside a body: by its code where it has one."""
    for path in _CODES:
        code = dig(body, path)
        if isinstance(code, int) and 400 <= code < 600:  # noqa: PLR2004
            return status_of(code, creating=write.external_id is None)
    return WriteStatus.REFUSED


def _located(answer: Answer) -> str | None:
    """Id at the end of a ``Location`` header."""
    try:
        path = urlsplit(answer.headers.get("Location", "")).path
    except ValueError:
        return None
    return unquote(path.rstrip("/").rpartition("/")[2]) or None
